"""The training methods: what each does, reads, asks for, and an example that runs."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from api.dependencies import Reader
from api.schemas import ListOf, MethodObject, MethodSummary
from core.catalog import method_named, methods
from core.registry import Method

router = APIRouter(prefix="/v1/methods", tags=["methods"])


@router.get("")
def list_methods(caller: Reader) -> ListOf[MethodSummary]:
    """Every method."""
    found = [
        MethodSummary(id=method.name, summary=method.summary, reads=list(method.reads)) for method in methods().values()
    ]
    return ListOf[MethodSummary](data=found, first_id=found[0].id, last_id=found[-1].id, has_more=False)


@router.get("/{name}")
def get_method(name: str, caller: Reader) -> MethodObject:
    """One method, with the JSON schema of its spec and an example that runs."""
    return _object(method_named(name))


@router.get(
    "/{name}/example_dataset",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
def get_example_dataset(name: str, caller: Reader) -> Response:
    """A small data set, with which the method's example runs in seconds."""
    method = method_named(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example"
        method.example.write_dataset(path)
        content = path.read_bytes()
    headers = {"Content-Disposition": f"attachment; filename={method.name}-example"}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _object(method: Method) -> MethodObject:
    return MethodObject(
        id=method.name,
        summary=method.summary,
        description=inspect.cleandoc(method.spec.__doc__ or ""),
        paper=method.paper,
        reads=list(method.reads),
        opens_with=method.opens_with,
        example=dict(method.example.spec),
        example_needs={field: dict(need.spec) for field, need in method.example.needs.items()},
        spec_schema=method.spec.model_json_schema(),
    )
