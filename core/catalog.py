"""Finds every method in core/methods and builds the union of their specs."""

from __future__ import annotations

import importlib
import operator
import pkgutil
from collections.abc import Mapping
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
        raise spec_error(error) from None


def spec_error(error: ValidationError) -> InvalidSpec:
    """Say what pydantic found in one sentence per field, and name the first field as `param`."""
    found = error.errors(include_url=False, include_context=False)
    places = [".".join(str(part) for part in item["loc"] if part not in methods()) for item in found]
    sentences = [f"{place}: {item['msg']}" if place else item["msg"] for place, item in zip(places, found, strict=True)]
    return InvalidSpec("; ".join(sentences[:5]), param=places[0] or None)
