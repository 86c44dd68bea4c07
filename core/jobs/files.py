"""Uploaded files: their rows; the content lies in storage under its hash, once, whoever uploaded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import String, cast, exists, select
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.jobs.checkpoints import refuse_while_stood_on
from core.jobs.database import read_clock
from core.jobs.expiry import is_there
from core.jobs.ids import is_id, new_id
from core.jobs.inputs import get_file
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.pages import Order, page
from core.jobs.status import UNFINISHED

BASE_MODEL = "base-model"
FINE_TUNE_RESULTS = "fine-tune-results"
STEP_METRICS = "step_metrics.csv"  # the artifact that becomes a file of that purpose


def add_file(
    session: Session,
    project_id: str,
    *,
    filename: str,
    purpose: str,
    size: int,
    sha256: str,
    profile: Mapping[str, Any] | None,
    keep_seconds: int | None = None,
) -> File:
    """Write the row of a file whose content is in storage; `keep_seconds`: until it expires, None: it does not."""
    created_at = int(read_clock(session))
    file = File(
        id=new_id("file"),
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=size,
        sha256=sha256,
        profile=None if profile is None else dict(profile),
        created_at=created_at,
        expires_at=None if keep_seconds is None else created_at + keep_seconds,
    )
    session.add(file)
    session.flush()
    return file


def list_files(
    session: Session,
    project_id: str,
    *,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> list[File]:
    """The project's files by (created_at, id), after the one named; raises NotFound for an unknown cursor.

    It may have been deleted since it was listed: people delete files as they go through the list.
    """
    cursor = _place(session, project_id, after) if after else None
    query = select(File).where(File.project_id == project_id, is_there())
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return list(session.scalars(page(query, File, cursor=cursor, limit=limit, order=order)))


def _place(session: Session, project_id: str, file_id: str) -> File | str:
    """The file, also if it has expired, or its id if it is not there any more."""
    file = session.get(File, file_id)
    if file is None and is_id(file_id, "file"):
        return file_id
    if file is None or file.project_id != project_id:
        raise NotFound(f"there is no file '{file_id}'", param="after")
    return file


def lock_file(session: Session, project_id: str, file_id: str, *, param: str) -> File:
    """The project's file, which nobody deletes until the transaction ends; raises NotFound."""
    locked: dict[str, File | None] = session.info.setdefault("locked_files", {})
    if file_id not in locked:  # held here, too, since a session forgets what nobody else holds
        locked[file_id] = session.get(File, file_id, with_for_update={"read": True})
    return get_file(session, project_id, file_id, param=param)


def delete_file(session: Session, project_id: str, file_id: str) -> File:
    """Delete the row; raises Conflict, naming the job, while a job that has not ended needs it."""
    session.get(File, file_id, with_for_update=True)
    file = get_file(session, project_id, file_id)
    refuse_while_needed(session, project_id, file_id)
    session.delete(file)
    session.flush()
    return file


def is_content_used(session: Session, sha256: str) -> bool:
    """Whether any file, of whatever project, has this content."""
    return bool(session.scalar(select(exists().where(File.sha256 == sha256))))


def refuse_while_needed(session: Session, project_id: str, reference: str) -> None:
    """Raise Conflict if a job that has not ended starts from this file or model, or from a checkpoint that did."""
    live = select(Job.id, Job.spec, Job.status).where(Job.project_id == project_id, Job.status.in_(UNFINISHED))
    for job_id, spec, status in session.execute(live.where(cast(Job.spec, String).contains(reference))):
        if reference in spec.values():
            raise Conflict(f"{job_id}, which is {status}, needs '{reference}'; cancel it first", code="in_use")
    refuse_while_stood_on(session, project_id, reference)
