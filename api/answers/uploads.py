"""Uploads in parts, as the API answers them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.answers.answer import Answer
from api.answers.files import FileObject, file_object
from api.purposes import PurposeFor
from core.jobs.models.files import UploadPart
from core.jobs.status import UploadStatus
from core.jobs.uploads import Seen


class ExpiryObject(Answer):
    """How long a file is kept."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int


class UploadObject(Answer):
    """A file that comes in parts."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int = Field(description="How many all parts are to have together.")
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    mime_type: str
    status: UploadStatus
    expires_after: ExpiryObject | None = Field(description="How long the file is kept; null: until it is deleted.")
    file: FileObject | None = Field(description="What it became; null until it is complete, and once that is deleted.")
    max_part_bytes: int = Field(description="The largest part that is taken.")


class PartObject(Answer):
    """A part of an upload that has arrived whole."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    sha256: str
    md5: str


def upload_object(seen: Seen, purposes: PurposeFor, *, max_part_bytes: int) -> UploadObject:
    """An upload in parts; `purposes`: what the purpose of its file is called."""
    upload = seen.upload
    return UploadObject(
        id=upload.id,
        bytes=upload.bytes,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        filename=upload.filename,
        purpose=upload.purpose,
        mime_type=upload.mime_type,
        status=seen.status,
        expires_after=None if not upload.file_seconds else ExpiryObject(seconds=upload.file_seconds),
        file=None if seen.file is None else file_object(seen.file, purposes),
        max_part_bytes=max_part_bytes,
    )


def part_object(part: UploadPart) -> PartObject:
    """A part of an upload."""
    return PartObject(
        id=part.id,
        created_at=part.created_at,
        upload_id=part.upload_id,
        bytes=part.bytes,
        sha256=part.sha256,
        md5=part.md5,
    )
