"""Uploads in parts: large files that can be gone on with after a cut."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from api import intake, joining
from api.answers.lists import ListOf, page_of
from api.answers.uploads import PartObject, UploadObject, part_object, upload_object
from api.dependencies import Caller, PageDep, Reader, Server, ServerDep, Writer
from api.purposes import PurposeFor, Purposes
from api.uploads import Form, Received, receive, safe_name
from core.errors import TooLarge, WeightworksError
from core.jobs import uploads
from core.jobs.ids import new_id
from core.jobs.models.files import Upload
from core.jobs.status import UploadStatus
from core.spec import Frozen
from core.storage import part_key

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

PART = Form("data", hashes=("sha256", "md5"))
PART_BODY = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary", "description": "The next bytes of the file."}},
}


class Expiry(Frozen):
    """When a file is forgotten by itself."""

    anchor: Literal["created_at"] = Field(description="From when the seconds count.")
    seconds: int = Field(
        ge=intake.KEEP_SECONDS[0], le=intake.KEEP_SECONDS[-1], description="From an hour to thirty days."
    )


class NewUpload(Frozen):
    """What a file that comes in parts is to be."""

    filename: str = Field(min_length=1, max_length=1024, description="What to call the file.")
    purpose: str = Field("dataset", max_length=intake.MAX_PURPOSE, description="`dataset`, or `base-model`.")
    bytes: int = Field(gt=0, description="How many bytes all its parts have together.")
    mime_type: str = Field(
        "application/octet-stream", max_length=255, pattern=r"^[\x20-\x7e]*$", description="Kept with the upload."
    )
    expires_after: Expiry | None = Field(None, description="Until when the file is kept; none: until it is deleted.")


class Completion(Frozen):
    """Which parts make the file."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=uploads.MAX_PARTS)] = Field(
        description="The parts, in the order of their bytes; parts that are not named are removed."
    )
    md5: str | None = Field(
        None, pattern=r"^[0-9a-fA-F]{32}$", description="What the whole file must have; another is refused."
    )


def find_upload(upload_id: str, caller: Caller, server: Server) -> Upload:
    """The caller's upload; raises NotFound. Before the body is looked at: of others' uploads nothing is told."""
    with server.database.read() as session:
        return uploads.get_upload(session, caller.project_id, upload_id)


def readable(upload_id: str, caller: Reader, server: ServerDep) -> Upload:
    """The upload, for whoever may read."""
    return find_upload(upload_id, caller, server)


def writable(upload_id: str, caller: Writer, server: ServerDep) -> Upload:
    """The upload, for whoever may write."""
    return find_upload(upload_id, caller, server)


Readable = Annotated[Upload, Depends(readable)]
Writable = Annotated[Upload, Depends(writable)]


@router.post("")
def create_upload(body: NewUpload, caller: Writer, server: ServerDep, purposes: Purposes) -> UploadObject:
    """Announce a file that will come in parts; it expires unless it is completed in time."""
    limit = server.settings.max_upload_bytes
    if body.bytes > limit:
        raise TooLarge(f"the file is over the limit of {limit:,} bytes", param="bytes")
    new = uploads.NewUpload(
        filename=safe_name(body.filename),
        purpose=intake.check_purpose(body.purpose),
        mime_type=body.mime_type,
        bytes=body.bytes,
        file_seconds=body.expires_after.seconds if body.expires_after else None,
    )
    with server.database.write() as session:
        intake.admit(server, session, caller.project_id, more=body.bytes)
        upload = uploads.create_upload(session, caller.project_id, new, seconds=server.settings.upload_expiry_seconds)
    return _shown(server, upload, purposes)


@router.get("")
def list_uploads(
    caller: Reader,
    server: ServerDep,
    page: PageDep,
    purposes: Purposes,
    status: Annotated[UploadStatus | None, Query(description="Only uploads in this state.")] = None,
) -> ListOf[UploadObject]:
    """The project's uploads: what is pending can be gone on with."""
    with server.database.read() as session:
        found = uploads.list_uploads(session, caller.project_id, status=status, **page.query)
        seen = uploads.see(session, found)
    return page_of([upload_object(one, purposes, max_part_bytes=server.settings.max_part_bytes) for one in seen], page)


@router.get("/{upload_id}")
def retrieve_upload(upload: Readable, server: ServerDep, purposes: Purposes) -> UploadObject:
    """An upload, and the file that it became."""
    return _shown(server, upload, purposes)


@router.get("/{upload_id}/parts")
def list_parts(upload: Readable, server: ServerDep, page: PageDep) -> ListOf[PartObject]:
    """The parts that have arrived, each with its hashes: who was cut compares them and sends the rest."""
    with server.database.read() as session:
        found = uploads.list_parts(session, upload.id, **page.query)
    return page_of([part_object(part) for part in found], page)


@router.post(
    "/{upload_id}/parts",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": PART_BODY}}}},
)
async def add_part(request: Request, upload: Writable, server: ServerDep) -> PartObject:
    """Send a part: streamed to storage, hashed on the way. The same bytes sent twice are two parts: name one."""
    await run_in_threadpool(_require_pending, server, upload)
    part_id = new_id("part")
    with server.storage.incoming_file() as (path, target):
        limit = min(server.settings.max_part_bytes, upload.bytes)
        received = await receive(request, target, form=PART, limit=limit)
        await run_in_threadpool(server.storage.keep, path, part_key(part_id))
        return await run_in_threadpool(_note_part, server, upload, part_id, received)


def _require_pending(server: Server, upload: Upload) -> None:
    with server.database.read() as session:
        uploads.require_pending(session, upload)


def _note_part(server: Server, upload: Upload, part_id: str, received: Received) -> PartObject:
    try:
        with server.database.write() as session:
            part = uploads.add_part(
                session,
                upload.project_id,
                upload.id,
                part_id,
                size=received.bytes,
                **received.hashes,
            )
            intake.admit(server, session, upload.project_id)
    except WeightworksError:
        server.storage.delete(part_key(part_id))
        raise
    return part_object(part)


@router.post("/{upload_id}/complete")
async def complete_upload(body: Completion, upload: Writable, server: ServerDep, purposes: Purposes) -> UploadObject:
    """Put the parts together to a file, which is checked as every file. A repeat answers the same.

    After an error the upload is still pending: complete it otherwise, or cancel it.
    """
    return await server.inspector.in_turn(_complete, body, upload, server, purposes)


def _complete(body: Completion, upload: Upload, server: Server, purposes: PurposeFor) -> UploadObject:
    joining.complete(server, upload.project_id, upload.id, part_ids=body.part_ids, md5=body.md5)
    return _shown(server, upload, purposes)


@router.post("/{upload_id}/cancel")
def cancel_upload(upload: Writable, server: ServerDep, purposes: Purposes) -> UploadObject:
    """Give an upload up; its parts are removed."""
    with server.database.write() as session:
        part_ids = uploads.cancel_upload(session, upload.project_id, upload.id)
    joining.forget_parts(server, part_ids)
    return _shown(server, upload, purposes)


def _shown(server: Server, upload: Upload, purposes: PurposeFor) -> UploadObject:
    with server.database.read() as session:
        (seen,) = uploads.see(session, [uploads.get_upload(session, upload.project_id, upload.id)])
    return upload_object(seen, purposes, max_part_bytes=server.settings.max_part_bytes)
