"""Finds every method in core/methods and builds the union of their specs."""

from __future__ import annotations

import importlib
import operator
import pkgutil
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache, reduce
from typing import Annotated, Any

from pydantic import Discriminator, TypeAdapter, ValidationError

import core.methods
from core.errors import InvalidSpec, NotFound
from core.registry import Method, registered
from core.spec import MethodSpec

MAX_SENTENCES = 5
_SOURCES = {"body", "query", "path", "header"}
_TYPES = {"int", "float", "str", "bool", "none", "list", "dict"}
_BRANCH = re.compile(r"(literal\[|constrained-).*")  # of a union, where no name of a field looks like it


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
    """Say what pydantic found, in one sentence a field by the names that the sender used; `param` is the first."""
    sentences: dict[str, list[str]] = {}
    for item in found:
        sentences.setdefault(_place(item), []).append(_sentence(item))
    told = [f"{place}: {' or '.join(dict.fromkeys(said))}" if place else said[0] for place, said in sentences.items()]
    return InvalidSpec("; ".join(told[:MAX_SENTENCES]), param=next(iter(sentences)) or None)


def _place(item: Mapping[str, Any]) -> str:
    """The field's path, without what pydantic puts between: the body, the union's tag, the branches of a union."""
    place = [part for index, part in enumerate(item["loc"]) if index or part not in _SOURCES]
    place = [part for part in place if not (isinstance(part, str) and _BRANCH.fullmatch(part))]
    if item["type"].startswith("union_tag"):
        place.append("method")
    prefix = place[:2] if place[:1] == ["jobs"] and len(place) > 2 else []
    place = place[len(prefix) :]
    if place and place[0] in methods():
        place = [place[1], *filter(_is_written, place[2:])] if len(place) > 1 else []
    return ".".join(str(part) for part in (*prefix, *place))


def _is_written(part: Any) -> bool:
    """Whether the sender wrote this part; a union's branches are `constrained-str`, `LoRA`, `int`."""
    return isinstance(part, int) or (part.isidentifier() and part.islower() and part not in _TYPES)


def _sentence(item: Mapping[str, Any]) -> str:
    if item["type"] == "missing":
        return "this field is missing"
    if item["type"] == "extra_forbidden":
        tags = [part for part in item["loc"] if part in methods()]
        fields = methods()[tags[0]].spec.model_fields if tags else {}
        close = get_close_matches(str(item["loc"][-1]), fields, n=1)
        return f"there is no such field; did you mean {close[0]}?" if close else "there is no such field"
    return str(item["msg"]).removeprefix("Value error, ")
