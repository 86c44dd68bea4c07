"""What goes by itself, and how much a project has stored; docs/retention.md holds the rules.

What is asked for as ids is looked at again, under a lock, in the transaction that removes it: a job may have been
queued again meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, exists, func, select, tuple_
from sqlalchemy.orm import Session

from core.errors import Conflict
from core.jobs.checkpoints import remove_checkpoints
from core.jobs.database import change_rows, database_now
from core.jobs.deletion import delete_artifacts
from core.jobs.expiry import is_over, is_there
from core.jobs.models.files import File, Upload, UploadPart
from core.jobs.models.jobs import Event, Job, SpentGpu
from core.jobs.models.results import Artifact, Checkpoint
from core.jobs.models.submissions import IdempotencyKey, Submission
from core.jobs.status import TERMINAL, UploadStatus

EVENTS_AT_ONCE = 5000  # so that nobody waits long for a database that takes one writer at a time
LASTING = "status"  # the events that tell of a job's life stay as long as the job

Keys = list[tuple[str, int]]  # what storage may forget, with its bytes


def stored_bytes(session: Session, project_id: str) -> int:
    """Bytes of a project's files, artifacts, checkpoints, and parts of uploads that are not complete.

    A content that several files share counts for each of them.
    """
    pending = (Upload.project_id == project_id, Upload.status == UploadStatus.PENDING)
    kinds: tuple[Any, ...] = (
        select(func.sum(File.bytes)).where(File.project_id == project_id),
        select(func.sum(Artifact.bytes)).join(Job, Artifact.job_id == Job.id).where(Job.project_id == project_id),
        select(func.sum(Checkpoint.bytes)).join(Job, Checkpoint.job_id == Job.id).where(Job.project_id == project_id),
        select(func.sum(UploadPart.bytes)).join(Upload, UploadPart.upload_id == Upload.id).where(*pending),
    )
    return sum(int(session.scalar(kind) or 0) for kind in kinds)


def expired_files(session: Session) -> list[str]:
    """The ids of files whose time is over and that no unfinished job needs."""
    return list(session.scalars(select(File.id).where(is_over())))


def delete_expired_file(session: Session, file_id: str) -> str | None:
    """Delete the row of a file that has expired; answers the SHA-256 of its content. None: it is needed after all."""
    file = session.get(File, file_id, with_for_update=True)
    if file is None or session.scalar(select(exists().where(File.id == file_id, is_there()))):
        return None
    session.delete(file)
    session.flush()
    return file.sha256


def jobs_to_thin(session: Session, table: type[Checkpoint | Artifact | Event], *, days: float) -> list[str]:
    """The ids of jobs that ended so many days ago and have rows in this table that may go."""
    mine: Any = table.job_id == Job.id
    if table is Event:
        mine &= Event.type != LASTING
    return list(session.scalars(select(Job.id).where(*_ended(days), exists().where(mine))))


def drop_checkpoints(session: Session, job_id: str, *, days: float) -> Keys:
    """Delete the checkpoints of a job that ended so many days ago, but those that an unfinished job starts from.

    Answers what storage may forget.
    """
    if not _lock_ended(session, job_id, days):
        return []
    rows = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id)).all()
    sizes = {row.key: row.bytes for row in rows}
    return [(key, sizes[key]) for key in remove_checkpoints(session, rows)]


def drop_artifacts(session: Session, job_id: str, *, days: float) -> Keys:
    """Delete the model and the artifacts of a job that ended so many days ago, unless an unfinished job needs them."""
    if not (job := _lock_ended(session, job_id, days)):
        return []
    try:
        return delete_artifacts(session, job)
    except Conflict:
        return []


def drop_events(
    session: Session, job_id: str, *, days: float, at_once: int = EVENTS_AT_ONCE
) -> tuple[int, list[tuple[int, dict[str, Any]]]]:
    """Delete the first `at_once` events, but those of the job's life, of a job that ended so many days ago.

    Answers how many there were, none once all are gone, and of the samples among them fence and data.
    """
    if not _lock_ended(session, job_id, days):
        return 0, []
    place = tuple_(Event.fence, Event.seq)
    going = (Event.job_id == job_id, Event.type != LASTING)
    first = select(Event.fence, Event.seq).where(*going).order_by(Event.fence, Event.seq)
    places: Sequence[Any] = session.execute(first.limit(at_once)).all()
    if not places:
        return 0, []
    these = (*going, place <= tuple_(*places[-1]))
    samples = session.execute(select(Event.fence, Event.data).where(*these, Event.type == "sample")).all()
    change_rows(session, delete(Event).where(*these))
    return len(places), [(fence, data) for fence, data in samples]


def drop_submissions(session: Session, *, seconds: float) -> int:
    """Forget what submissions older than this made: a repeat so late makes a job of its own. Answers how many."""
    before = database_now() - seconds
    return sum(
        change_rows(session, delete(table).where(table.created_at < before)) for table in (IdempotencyKey, Submission)
    )


def drop_uploads(session: Session, *, seconds: float) -> int:
    """Forget uploads that ended, and expired so long ago; answers how many."""
    over = Upload.status.not_in([UploadStatus.PENDING])
    return change_rows(session, delete(Upload).where(over, Upload.expires_at < database_now() - seconds))


def drop_spent_gpu(session: Session, *, days: float) -> int:
    """Forget what deleted jobs spent on GPUs so many days ago: it counts no more. Answers how many attempts."""
    return change_rows(session, delete(SpentGpu).where(SpentGpu.ended_at < database_now() - days * 86400))


def _ended(days: float) -> tuple[Any, ...]:
    return Job.status.in_(TERMINAL), Job.finished_at < database_now() - days * 86400


def _lock_ended(session: Session, job_id: str, days: float) -> Job | None:
    query = select(Job).where(Job.id == job_id, *_ended(days)).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))
