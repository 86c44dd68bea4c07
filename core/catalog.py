"""Finds every method in core/methods and builds the union of their specs."""

from __future__ import annotations

import importlib
import operator
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache, reduce
from typing import Annotated, Any

from pydantic import Discriminator, TypeAdapter, ValidationError

import core.methods
from core.errors import InvalidSpec, NotFound
from core.registry import Method, registered
from core.spec import MethodSpec


@cache
def methods() -> Mapping[str, Method]:
    """Every method by name; imports each file of core/methods once."""
    for module in pkgutil.iter_modules(core.methods.__path__):
        importlib.import_module(f"core.methods.{module.name}")
    return registered()


def method_named(name: str) -> Method:
    """The method of that name; raises NotFound, naming those that exist."""
    found = methods().get(name)
    if found is None:
        raise NotFound(f"there is no method '{name}'; there are: {', '.join(methods())}", param="method")
    return found


@cache
def job_spec() -> Any:
    """The type of any job's spec: a union of all methods' specs, told apart by `method`."""
    union: Any = reduce(operator.or_, (method.spec for method in methods().values()))
    return Annotated[union, Discriminator("method")]


@cache
def _adapter() -> TypeAdapter[MethodSpec]:
    return TypeAdapter(job_spec())


def read_spec(data: Mapping[str, Any]) -> MethodSpec:
    """Validate a spec given as JSON; raises InvalidSpec that names the first wrong field."""
    try:
        return _adapter().validate_python(data)
    except ValidationError as error:
        raise spec_error(error.errors(include_url=False, include_context=False)) from None


def spec_error(found: Sequence[Mapping[str, Any]]) -> InvalidSpec:
    """Say what pydantic found in one sentence per field, and name the first field as `param`."""
    sentences = []
    for item in found:
        message = item["msg"].removeprefix("Value error, ")
        place = _place(item)
        sentences.append(f"{place}: {message}" if place else message)
    return InvalidSpec("; ".join(sentences[:5]), param=_place(found[0]) or None)


def _place(item: Mapping[str, Any]) -> str:
    """The field's path, without what pydantic puts between: the body, and the branch taken of the union."""
    if item["type"].startswith("union_tag"):
        return "method"
    names = [str(part) for part in item["loc"] if part != "body"]
    kept = [name for index, name in enumerate(names) if name not in methods() or (index and names[index - 1] == "jobs")]
    return ".".join(kept)
