"""Uploads in parts: their rows, the parts that have arrived, and the ways in which an upload ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from core.errors import Conflict, InvalidRequest, NotFound
from core.jobs.database import database_now, read_clock
from core.jobs.expiry import is_there
from core.jobs.ids import new_id
from core.jobs.models.files import File, Upload, UploadPart
from core.jobs.pages import Order, page
from core.jobs.status import UploadStatus

MAX_PARTS = 10_000


class AlreadyCompleted(Exception):  # noqa: N818 - not an error: the upload has its file
    """Someone else completed the upload meanwhile."""


@dataclass(frozen=True)
class Seen:
    """An upload as it is at this moment: expired once its time is over, whether or not that was noted yet."""

    upload: Upload
    status: UploadStatus
    file: File | None


@dataclass(frozen=True)
class NewUpload:
    """What an upload is to bring. `file_seconds`: how long the file is kept; None: until it is deleted."""

    filename: str
    purpose: str
    mime_type: str
    bytes: int
    file_seconds: int | None = None


def create_upload(session: Session, project_id: str, new: NewUpload, *, seconds: float) -> Upload:
    """Write a pending upload that expires after so many seconds."""
    now = read_clock(session)
    upload = Upload(
        id=new_id("upload"),
        project_id=project_id,
        filename=new.filename,
        purpose=new.purpose,
        mime_type=new.mime_type,
        bytes=new.bytes,
        status=UploadStatus.PENDING,
        file_seconds=new.file_seconds,
        created_at=int(now),
        expires_at=int(now + seconds),
    )
    session.add(upload)
    session.flush()
    return upload


def get_upload(
    session: Session,
    project_id: str,
    upload_id: str,
    *,
    param: str | None = "upload_id",
    should_lock: bool = False,
) -> Upload:
    """The project's upload, its row locked until the transaction ends if asked for; raises NotFound."""
    upload = session.get(Upload, upload_id, with_for_update=True if should_lock else None)
    if upload is None or upload.project_id != project_id:
        raise NotFound(f"there is no upload '{upload_id}'", param=param)
    return upload


def list_uploads(
    session: Session,
    project_id: str,
    *,
    status: UploadStatus | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> list[Upload]:
    """The project's uploads by (created_at, id); raises NotFound for an unknown cursor."""
    cursor = get_upload(session, project_id, after, param="after") if after else None
    query = select(Upload).where(Upload.project_id == project_id)
    is_over = (Upload.status == UploadStatus.PENDING) & (Upload.expires_at <= database_now())
    if status is UploadStatus.EXPIRED:
        query = query.where((Upload.status == status) | is_over)
    elif status is not None:
        query = query.where(Upload.status == status, ~is_over)
    return list(session.scalars(page(query, Upload, cursor=cursor, limit=limit, order=order)))


def see(session: Session, uploads: Sequence[Upload]) -> list[Seen]:
    """The uploads as they are at this moment."""
    now = read_clock(session)
    ids = [upload.file_id for upload in uploads if upload.file_id]
    files = {file.id: file for file in session.scalars(select(File).where(File.id.in_(ids), is_there()))} if ids else {}
    return [Seen(upload, _status(upload, now), files.get(upload.file_id or "")) for upload in uploads]


def require_pending(session: Session, upload: Upload) -> None:
    """Raise Conflict, naming the status, unless more may happen to the upload."""
    status = _status(upload, read_clock(session))
    if status is not UploadStatus.PENDING:
        raise Conflict(f"the upload is {status}: only a pending one takes parts and is completed", param="upload_id")


def add_part(
    session: Session, project_id: str, upload_id: str, part_id: str, *, size: int, sha256: str, md5: str
) -> UploadPart:
    """Note a part whose content is in storage; raises Conflict if the upload is over, InvalidRequest at its limit."""
    upload = get_upload(session, project_id, upload_id, should_lock=True)
    require_pending(session, upload)
    count = select(func.count()).select_from(UploadPart).where(UploadPart.upload_id == upload_id)
    if (session.scalar(count) or 0) >= MAX_PARTS:
        raise InvalidRequest(f"an upload takes at most {MAX_PARTS:,} parts: send larger ones", param="data")
    part = UploadPart(
        id=part_id, upload_id=upload_id, bytes=size, sha256=sha256, md5=md5, created_at=int(read_clock(session))
    )
    session.add(part)
    session.flush()
    return part


def list_parts(
    session: Session, upload_id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> list[UploadPart]:
    """The parts that have arrived, by (created_at, id); raises NotFound for an unknown cursor."""
    cursor = session.get(UploadPart, after) if after else None
    if after and (cursor is None or cursor.upload_id != upload_id):
        raise NotFound(f"the upload has no part '{after}'", param="after")
    query = select(UploadPart).where(UploadPart.upload_id == upload_id)
    return list(session.scalars(page(query, UploadPart, cursor=cursor, limit=limit, order=order)))


def parts_named(session: Session, upload: Upload, part_ids: Sequence[str]) -> list[UploadPart]:
    """The parts of these ids, in this order; raises InvalidRequest unless together they are what was declared."""
    known = {
        part.id: part for part in session.scalars(select(UploadPart).where(UploadPart.upload_id == upload.id)).all()
    }
    for index, part_id in enumerate(part_ids):
        if part_id not in known:
            raise InvalidRequest(f"the upload has no part '{part_id[:64]}'", param=f"part_ids.{index}")
    if len(set(part_ids)) < len(part_ids):
        twice = next(part_id for part_id in part_ids if part_ids.count(part_id) > 1)
        raise InvalidRequest(f"'{twice}' is named twice: name each part once", param="part_ids")
    parts = [known[part_id] for part_id in part_ids]
    total = sum(part.bytes for part in parts)
    if total != upload.bytes:
        told = f"the parts have {total:,} bytes together, and the upload was to have {upload.bytes:,}"
        raise InvalidRequest(f"{told}: name all of its parts, in order", param="part_ids")
    return parts


def parts_to_join(
    session: Session, project_id: str, upload_id: str, part_ids: Sequence[str]
) -> tuple[Upload, list[UploadPart]]:
    """The upload and its parts of these ids, in this order.

    Raises AlreadyCompleted if it has a file, Conflict if it is over, and what `parts_named` raises.
    """
    upload = get_upload(session, project_id, upload_id, should_lock=True)  # lest its parts go once it was looked at
    if upload.status is UploadStatus.COMPLETED:
        raise AlreadyCompleted
    require_pending(session, upload)
    return upload, parts_named(session, upload, part_ids)


def complete_upload(session: Session, project_id: str, upload_id: str, file: File) -> list[str]:
    """Note, in the transaction that writes it, that the upload became this file; answers the ids of its parts.

    Raises AlreadyCompleted if it has a file, Conflict if it is over.
    """
    upload = get_upload(session, project_id, upload_id, should_lock=True)
    if upload.status is UploadStatus.COMPLETED:
        raise AlreadyCompleted
    require_pending(session, upload)
    upload.file_id = file.id
    return _end(session, upload, UploadStatus.COMPLETED)


def cancel_upload(session: Session, project_id: str, upload_id: str) -> list[str]:
    """Give an upload up; answers the ids of its parts. Raises Conflict, naming the status, unless it is pending."""
    upload = get_upload(session, project_id, upload_id, should_lock=True)
    status = _status(upload, read_clock(session))
    if status is not UploadStatus.PENDING:
        raise Conflict(f"the upload is {status} already: it cannot be cancelled", param="upload_id")
    return _end(session, upload, UploadStatus.CANCELLED)


def expire_uploads(session: Session) -> list[tuple[str, int]]:
    """End every pending upload whose time is over; answers the ids of their parts, with their bytes."""
    is_over = (Upload.status == UploadStatus.PENDING, Upload.expires_at <= database_now())
    gone: list[tuple[str, int]] = []
    for upload in session.scalars(select(Upload).where(*is_over).with_for_update(skip_locked=True)).all():
        parts = select(UploadPart.id, UploadPart.bytes).where(UploadPart.upload_id == upload.id)
        gone += [(part_id, size) for part_id, size in session.execute(parts)]
        _end(session, upload, UploadStatus.EXPIRED)
    return gone


def _end(session: Session, upload: Upload, status: UploadStatus) -> list[str]:
    upload.status = status
    mine: Any = UploadPart.upload_id == upload.id
    part_ids = list(session.scalars(select(UploadPart.id).where(mine)))
    session.execute(delete(UploadPart).where(mine))
    session.flush()
    return part_ids


def _status(upload: Upload, now: float) -> UploadStatus:
    is_over = upload.status is UploadStatus.PENDING and upload.expires_at <= now
    return UploadStatus.EXPIRED if is_over else upload.status
