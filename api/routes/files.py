"""Data sets and base models: uploaded, listed, downloaded, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from api.contents import forget, kept
from api.dependencies import Caller, PageDep, Reader, Server, ServerDep, Writer
from api.downloads import Download, documented, send
from api.presenting import file_object, page_of
from api.schemas import Deleted, FileObject, ListOf
from api.uploads import Received, receive
from core.data.model_archive import inspect_model_archive
from core.data.profile import inspect
from core.errors import InvalidRequest
from core.jobs import files
from core.jobs.files import BASE_MODEL
from core.jobs.inputs import get_file
from core.storage import file_key

router = APIRouter(prefix="/v1/files", tags=["files"])

BODY = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "The data set, in any format that is read."},
        "purpose": {
            "type": "string",
            "default": "dataset",
            "maxLength": 64,
            "description": f"`dataset`, or `{BASE_MODEL}` for a zip or tar of a Hugging Face folder with safetensors.",
        },
    },
}


@router.post(
    "", openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": BODY}}}}
)
async def upload_file(request: Request, caller: Writer, server: ServerDep) -> FileObject:
    """Upload a data set or a base model: streamed to storage, hashed on the way, recognised and checked.

    What is wrong inside is told by line or member, and nothing is kept then.
    """
    with server.storage.incoming_file() as (path, target):
        received = await receive(request, target, limit=server.settings.max_upload_bytes)
        return await run_in_threadpool(_keep, server, caller, path, received)


def _keep(server: Server, caller: Caller, path: Path, received: Received) -> FileObject:
    purpose = received.fields.get("purpose") or "dataset"
    if len(purpose) > 64 or not purpose.isprintable():
        raise InvalidRequest("purpose is a short word: dataset, or base-model", param="purpose")
    profile = None
    if purpose == BASE_MODEL:
        inspect_model_archive(path, max_unpacked_bytes=server.settings.max_unpacked_bytes)
    else:
        profile = inspect(path, max_unpacked_bytes=server.settings.max_unpacked_bytes).as_dict()
    with kept(server, path, received.sha256), server.database.write() as session:
        file = files.add_file(
            session,
            caller.project_id,
            filename=received.filename,
            purpose=purpose,
            size=received.bytes,
            sha256=received.sha256,
            profile=profile,
        )
    return file_object(file)


@router.get("")
def list_files(
    caller: Reader,
    server: ServerDep,
    page: PageDep,
    purpose: Annotated[str | None, Query(max_length=64, description="Only files of this purpose.")] = None,
) -> ListOf[FileObject]:
    """The project's files."""
    with server.database.read() as session:
        found = files.list_files(
            session, caller.project_id, purpose=purpose, after=page.after, limit=page.limit + 1, order=page.order
        )
    return page_of([file_object(file) for file in found], page)


@router.get("/{file_id}")
def retrieve_file(file_id: str, caller: Reader, server: ServerDep) -> FileObject:
    """One file, and what was found inside it."""
    with server.database.read() as session:
        return file_object(get_file(session, caller.project_id, file_id))


@router.head("/{file_id}/content", include_in_schema=False)
@router.get("/{file_id}/content", response_class=Response, responses=documented())
def download_file(file_id: str, request: Request, caller: Reader, server: ServerDep) -> Response:
    """The file as it was uploaded."""
    with server.database.read() as session:
        file = get_file(session, caller.project_id, file_id)
    path = server.storage.existing(file_key(file.sha256))
    return send(request, Download(path, file.filename, file.bytes, file.sha256))


@router.delete("/{file_id}")
def delete_file(file_id: str, caller: Writer, server: ServerDep) -> Deleted:
    """Forget a file; 409 while an unfinished job needs it."""
    with server.database.write() as session:
        file = files.delete_file(session, caller.project_id, file_id)
    forget(server, file.sha256)
    return Deleted(id=file_id, object="file", deleted=True)
