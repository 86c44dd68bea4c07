"""The parts of an upload put together: on disk, hashed on the way, never held in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import BinaryIO

from sqlalchemy.orm import Session

from api.dependencies import Server
from api.intake import Whole, take_in
from core.errors import InvalidRequest, NotFound
from core.jobs import uploads
from core.jobs.models.files import File, Upload, UploadPart
from core.jobs.status import UploadStatus
from core.storage import Stored, part_key


def complete(server: Server, project_id: str, upload_id: str, *, part_ids: Sequence[str], md5: str | None) -> None:
    """Make the file of these parts, unless it was made already; raises InvalidRequest, InvalidData or Conflict.

    After an error the upload is as it was: it can be completed otherwise, or cancelled.
    """
    try:
        with server.database.read() as session:
            upload, parts = uploads.parts_to_join(session, project_id, upload_id, part_ids)
        left_over = _make_file(server, upload, parts, md5=md5)
    except uploads.AlreadyCompleted:
        return
    except NotFound:
        _explain_missing_part(server, project_id, upload_id)
        return
    forget_parts(server, left_over)


def forget_parts(server: Server, part_ids: Sequence[str]) -> None:
    """Remove what parts held; their rows are gone."""
    for part_id in part_ids:
        server.storage.delete(part_key(part_id))


def _make_file(server: Server, upload: Upload, parts: Sequence[UploadPart], *, md5: str | None) -> list[str]:
    """Answers the ids of the parts, none of which is needed any more."""
    part_ids: list[str] = []

    def note(session: Session, file: File) -> None:
        part_ids.extend(uploads.complete_upload(session, upload.project_id, upload.id, file))

    with server.storage.incoming_file() as (path, target):
        found = [server.storage.stored(part_key(part.id)) for part in parts]
        sha256 = _join(found, [part.bytes for part in parts], target, md5=md5)
        whole = Whole(upload.filename, upload.purpose, upload.bytes, sha256, upload.file_seconds)
        take_in(server, upload.project_id, path, whole, note=note)
    return part_ids


def _join(parts: Sequence[Stored], sizes: Sequence[int], target: BinaryIO, *, md5: str | None) -> str:
    """Write the parts one behind the other; answers the SHA-256 of all. Raises InvalidRequest for another MD5."""
    sha256, found = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for part, size in zip(parts, sizes, strict=True):
        for chunk in part.chunks(0, size):
            sha256.update(chunk)
            if md5 is not None:
                found.update(chunk)
            target.write(chunk)
    target.flush()
    os.fsync(target.fileno())
    if md5 is not None and found.hexdigest() != md5.lower():
        told = f"the parts have the MD5 {found.hexdigest()} together, and not {md5.lower()}"
        raise InvalidRequest(f"{told}: send again what is damaged", param="md5", code="wrong_md5")
    return sha256.hexdigest()


def _explain_missing_part(server: Server, project_id: str, upload_id: str) -> None:
    """Whoever completes or cancels an upload removes its parts; raises Conflict unless it was completed meanwhile."""
    with server.database.read() as session:
        upload = uploads.get_upload(session, project_id, upload_id)
        if upload.status is not UploadStatus.COMPLETED:
            uploads.require_pending(session, upload)
            raise InvalidRequest("a part is no longer in storage: send the parts again", param="part_ids")
