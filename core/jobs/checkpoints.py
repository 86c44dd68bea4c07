"""Checkpoints as models: whom they serve, what they stand on, and that nobody removes either from under a job."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import String, cast, delete, select
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.jobs.inputs import checkpoint_input, foundations, get_checkpoint
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.models.results import Checkpoint, CheckpointPermission, TrainedModel
from core.jobs.status import UNFINISHED

FIELDS = ("base", "student", "teacher")  # those of all methods' specs that may name a checkpoint


def lock_checkpoint(session: Session, project_id: str, checkpoint_id: str, *, param: str) -> Checkpoint:
    """The checkpoint, which nobody deletes until the transaction ends, nor what it stands on.

    Raises NotFound, also for one that is no model.
    """
    for reference in foundations(session, checkpoint_id):
        _lock(session, reference)
    checkpoint = get_checkpoint(session, project_id, checkpoint_id, param=param)
    refuse_unless_model(checkpoint, param=param)
    checkpoint_input(session, checkpoint, param=param)
    return checkpoint


def refuse_unless_model(checkpoint: Checkpoint, *, param: str | None) -> None:
    """Raise NotFound for a checkpoint that is only for going on with its job."""
    if not checkpoint.is_epoch:
        raise NotFound(
            f"'{checkpoint.id}' is for going on with its job: a checkpoint can be a model where an epoch ended in a "
            "fine-tuning of a language model",
            param=param,
        )


def _lock(session: Session, reference: str) -> None:
    """As whoever deletes it locks it."""
    table: Any = Checkpoint if reference.startswith("ckpt-") else File
    if reference.startswith("model-"):
        model = session.get(TrainedModel, reference)
        table, reference = Job, "" if model is None else model.job_id
    session.get(table, reference, with_for_update={"read": True}, populate_existing=True)


def remove_checkpoints(session: Session, rows: Sequence[Checkpoint]) -> list[str]:
    """Delete those of a job's checkpoints that no unfinished job starts from, with what permits them.

    Answers their storage keys.
    """
    used = _used(session, [row.id for row in rows if row.is_epoch])
    going = [row for row in rows if row.id not in used]
    _delete_permissions(session, going)
    for row in going:
        session.delete(row)
    session.flush()
    return [row.key for row in going]


def refuse_while_used(session: Session, project_id: str, rows: Sequence[Checkpoint]) -> None:
    """Raise Conflict while a job that has not ended, of whatever project, starts from one of these."""
    for checkpoint_id, start in _used(session, [row.id for row in rows if row.is_epoch]).items():
        raise _conflict(start, project_id, checkpoint_id)


def refuse_while_stood_on(session: Session, project_id: str, reference: str) -> None:
    """Raise Conflict while a job that has not ended starts from a checkpoint that stands on this, of the project."""
    for start, _ in _starts(session, [reference]):
        raise _conflict(start, project_id, reference)


class Start(NamedTuple):
    """A job that has not ended and starts from a checkpoint."""

    job_id: str
    project_id: str
    checkpoint_id: str


def _used(session: Session, checkpoint_ids: Sequence[str]) -> dict[str, Start]:
    """Those of these that a job that has not ended starts from, by itself or by way of others; with that job.

    They are locked first: whoever starts from one meanwhile waits, or is seen.
    """
    if not checkpoint_ids:
        return {}
    session.execute(select(Checkpoint.id).where(Checkpoint.id.in_(checkpoint_ids)).with_for_update())
    return {one: start for start, found in _starts(session, checkpoint_ids) for one in found}


def _starts(session: Session, references: Collection[str]) -> Iterator[tuple[Start, list[str]]]:
    """The jobs that start from what stands on these, and on which, as long as their projects may use it."""
    live = select(Job.id, Job.project_id, Job.spec)
    live = live.where(Job.status.in_(UNFINISHED), cast(Job.spec, String).contains('"ckpt-'))
    for job_id, project_id, spec in session.execute(live).all():
        named = (spec.get(field) for field in FIELDS)
        for checkpoint_id in (one for one in named if isinstance(one, str) and one.startswith("ckpt-")):
            found = [one for one in foundations(session, checkpoint_id) if one in references]
            if found and _is_usable(session, project_id, checkpoint_id):
                yield Start(job_id, project_id, checkpoint_id), found


def _is_usable(session: Session, project_id: str, checkpoint_id: str) -> bool:
    """Whether a job of the project finds the checkpoint with all that it stands on."""
    try:
        checkpoint_input(session, get_checkpoint(session, project_id, checkpoint_id))
    except NotFound:
        return False
    return True


def _conflict(start: Start, project_id: str, reference: str) -> Conflict:
    """Why what the project has cannot be removed; of another project's jobs nothing is told."""
    if start.project_id != project_id:
        message = (
            f"a job of another project, which has not ended, starts from a checkpoint, and needs '{reference}'; take "
            "back the permission first"
        )
    else:
        learned = "" if start.checkpoint_id == reference else f", which was learned on '{reference}'"
        message = f"{start.job_id}, which has not ended, starts from '{start.checkpoint_id}'{learned}; cancel it first"
    return Conflict(message, code="in_use")


def _delete_permissions(session: Session, rows: Sequence[Checkpoint]) -> None:
    ids = [row.id for row in rows if row.is_epoch]
    if ids:
        session.execute(delete(CheckpointPermission).where(CheckpointPermission.checkpoint_id.in_(ids)))
