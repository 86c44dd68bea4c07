"""The training methods: what each does, reads, asks for, and an example that runs."""

from __future__ import annotations

import inspect
import tempfile
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from api.answers.answer import Answer
from api.answers.lists import ListOf
from api.dependencies import Reader
from api.downloads import BINARY, Responses, disposition
from core.catalog import method_named, methods
from core.errors import NotFound
from core.registry import Method

router = APIRouter(prefix="/v1/methods", tags=["methods"])

EXAMPLE: Responses = {200: {"content": {"application/octet-stream": {"schema": BINARY}}}}


class ExampleObject(Answer):
    """A job that runs as it is, once its data set is uploaded."""

    spec: dict[str, Any] = Field(description="The spec, without `dataset` and the models that it needs.")
    dataset: str = Field(description="Where its data set is to be had.")


class MethodObject(Answer):
    """A training method."""

    id: str
    object: Literal["method"] = "method"
    summary: str
    description: str
    paper: str
    reads: list[str] = Field(description="Kinds of data set it takes.")
    opens_with: str = Field(description="What its artifacts open with.")
    example: ExampleObject
    example_files: dict[str, str] = Field(description="Where its further data sets are to be had, by field.")
    example_needs: dict[str, ExampleObject] = Field(description="Jobs whose models the example needs, by field.")
    spec_schema: dict[str, Any] = Field(description="JSON schema of its spec.")


@router.get("")
def list_methods(caller: Reader) -> ListOf[MethodObject]:
    """Every method, by name."""
    found = [_object(method) for method in methods().values()]
    return ListOf[MethodObject](data=found, first_id=found[0].id, last_id=found[-1].id, has_more=False)


@router.get("/{name}")
def get_method(name: str, caller: Reader) -> MethodObject:
    """One method, with the JSON schema of its spec and an example that runs."""
    return _object(method_named(name))


@router.get("/{name}/example_dataset", response_class=Response, responses=EXAMPLE)
def get_example_dataset(
    name: str,
    caller: Reader,
    need: Annotated[
        str | None, Query(max_length=64, description="The data set of the job that makes the model for this field.")
    ] = None,
    file: Annotated[str | None, Query(max_length=64, description="The data set for this field, not the first.")] = None,
) -> Response:
    """A small data set, with which the method's example runs in seconds."""
    example = method_named(name).example
    if need is not None and need not in example.needs:
        raise NotFound(f"the example of {name} needs no other job's model as '{need}'", param="need")
    if file is not None and (need is not None or file not in example.files):
        raise NotFound(f"the example of {name} has no data set for '{file}'", param="file")
    content = _content(name, need, file)
    headers = {"Content-Disposition": disposition(f"{name}-{need or file or 'example'}")}
    return Response(content, media_type="application/octet-stream", headers=headers)


@cache
def _content(name: str, need: str | None, file: str | None) -> bytes:
    example = method_named(name).example
    write = (example if need is None else example.needs[need]).write_dataset
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example"
        (write if file is None else example.files[file])(path)
        return path.read_bytes()


@cache
def _schema(name: str) -> dict[str, Any]:
    return method_named(name).spec.model_json_schema()


def _object(method: Method) -> MethodObject:
    address = f"/v1/methods/{method.name}/example_dataset"
    return MethodObject(
        id=method.name,
        summary=method.summary,
        description=inspect.cleandoc(method.spec.__doc__ or ""),
        paper=method.paper,
        reads=list(method.reads),
        opens_with=method.opens_with,
        example=ExampleObject(spec=dict(method.example.spec), dataset=address),
        example_files={field: f"{address}?file={field}" for field in method.example.files},
        example_needs={
            field: ExampleObject(spec=dict(need.spec), dataset=f"{address}?need={field}")
            for field, need in method.example.needs.items()
        },
        spec_schema=_schema(method.name),
    )
