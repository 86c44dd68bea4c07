"""Data sets and base models: uploaded, listed, downloaded, deleted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from api import intake
from api.answers.answer import Deleted
from api.answers.files import FileObject, file_object
from api.answers.lists import ListOf, page_of
from api.contents import forget
from api.dependencies import Caller, FilesPageDep, Reader, Server, ServerDep, Writer
from api.downloads import Download, documented, send
from api.purposes import Purposes
from api.uploads import Form, Received, receive
from core.errors import InvalidRequest
from core.jobs import files
from core.jobs.files import BASE_MODEL
from core.jobs.inputs import get_file
from core.jobs.models.files import File
from core.storage import file_key

router = APIRouter(prefix="/v1/files", tags=["files"])

FILE = Form("file", ("purpose", "expires_after[anchor]", "expires_after[seconds]"))
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
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"], "description": "From when seconds count."},
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": intake.KEEP_SECONDS[0],
            "maximum": intake.KEEP_SECONDS[-1],
            "description": "After how long the file is forgotten by itself.",
        },
    },
}


@router.post(
    "", openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": BODY}}}}
)
async def upload_file(request: Request, caller: Writer, server: ServerDep, purposes: Purposes) -> FileObject:
    """Upload a data set or a base model: streamed to storage, hashed on the way, recognised and checked.

    What is wrong inside is told by line or member, and nothing is kept then.
    """
    await run_in_threadpool(intake.refuse_when_full, server, caller.project_id)
    with server.storage.incoming_file() as (path, target):
        received = await receive(request, target, form=FILE, limit=server.settings.max_upload_bytes)
        file = await server.inspector.in_turn(_keep, server, caller, path, received)
    return file_object(file, purposes)


def _keep(server: Server, caller: Caller, path: Path, received: Received) -> File:
    whole = intake.Whole(
        filename=received.filename,
        purpose=intake.check_purpose(received.fields.get("purpose") or "dataset"),
        bytes=received.bytes,
        sha256=received.hashes["sha256"],
        keep_seconds=_keep_seconds(received.fields),
    )
    return intake.take_in(server, caller.project_id, path, whole)


def _keep_seconds(fields: Mapping[str, str]) -> int | None:
    """How long the file is to be kept, if the form says so."""
    anchor, seconds = fields.get("expires_after[anchor]", ""), fields.get("expires_after[seconds]", "")
    if not anchor and not seconds:
        return None
    if anchor != "created_at":
        raise InvalidRequest("a file's seconds count from created_at: give that", param="expires_after[anchor]")
    if not re.fullmatch("[0-9]{1,9}", seconds) or int(seconds) not in intake.KEEP_SECONDS:
        first, last = intake.KEEP_SECONDS[0], intake.KEEP_SECONDS[-1]
        raise InvalidRequest(f"give whole seconds from {first:,} to {last:,}", param="expires_after[seconds]")
    return int(seconds)


@router.get("")
def list_files(
    caller: Reader,
    server: ServerDep,
    page: FilesPageDep,
    purposes: Purposes,
    purpose: Annotated[str | None, Query(max_length=64, description="Only files of this purpose.")] = None,
) -> ListOf[FileObject]:
    """The project's files."""
    with server.database.read() as session:
        found = files.list_files(session, caller.project_id, purpose=purpose, **page.query)
    return page_of([file_object(file, purposes) for file in found], page)


@router.get("/{file_id}")
def retrieve_file(file_id: str, caller: Reader, server: ServerDep, purposes: Purposes) -> FileObject:
    """One file, and what was found inside it."""
    with server.database.read() as session:
        return file_object(get_file(session, caller.project_id, file_id), purposes)


@router.head("/{file_id}/content", include_in_schema=False)
@router.get("/{file_id}/content", response_class=Response, responses=documented())
def download_file(file_id: str, request: Request, caller: Reader, server: ServerDep) -> Response:
    """The file as it was uploaded."""
    with server.database.read() as session:
        file = get_file(session, caller.project_id, file_id)
    stored = server.storage.stored(file_key(file.sha256))
    return send(request, Download(stored, file.filename, file.bytes, file.sha256))


@router.delete("/{file_id}")
def delete_file(file_id: str, caller: Writer, server: ServerDep) -> Deleted:
    """Forget a file; 409 while an unfinished job needs it."""
    with server.database.write() as session:
        file = files.delete_file(session, caller.project_id, file_id)
    forget(server, file.sha256)
    return Deleted(id=file_id, object="file", deleted=True)
