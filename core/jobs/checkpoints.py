"""Checkpoints as models: whom they serve, what they stand on, and that nobody removes either from under a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import String, cast, delete, select
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.jobs.inputs import checkpoint_input, foundations, get_checkpoint
from core.jobs.models import Checkpoint, CheckpointPermission, File, Job, TrainedModel
from core.jobs.status import UNFINISHED


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


def refuse_while_used(session: Session, rows: Sequence[Checkpoint]) -> None:
    """Raise Conflict, naming the job, while one that has not ended, of whatever project, starts from one of these."""
    used = _used(session, [row.id for row in rows if row.is_epoch])
    for checkpoint_id, job_id in used.items():
        raise Conflict(f"{job_id}, which has not ended, starts from '{checkpoint_id}'; cancel it first", code="in_use")


def refuse_while_stood_on(session: Session, reference: str) -> None:
    """Raise Conflict, naming the checkpoint, while a job that has not ended starts from one that stands on this."""
    for job_id, checkpoint_id in _starts(session):
        if reference in foundations(session, checkpoint_id):
            raise Conflict(
                f"{job_id}, which has not ended, starts from '{checkpoint_id}', which was learned on '{reference}'; "
                "cancel it first",
                code="in_use",
            )


def _used(session: Session, checkpoint_ids: Sequence[str]) -> dict[str, str]:
    """Those of these that a job that has not ended starts from, by itself or by way of others; with that job.

    They are locked first: whoever starts from one meanwhile waits, or is seen.
    """
    if not checkpoint_ids:
        return {}
    session.execute(select(Checkpoint.id).where(Checkpoint.id.in_(checkpoint_ids)).with_for_update())
    used: dict[str, str] = {}
    for job_id, checkpoint_id in _starts(session):
        used |= {one: job_id for one in foundations(session, checkpoint_id) if one in checkpoint_ids}
    return used


def _starts(session: Session) -> list[tuple[str, str]]:
    """The jobs that have not ended and start from checkpoints, each with one of these."""
    live = select(Job.id, Job.spec).where(Job.status.in_(UNFINISHED), cast(Job.spec, String).contains('"ckpt-'))
    return [
        (job_id, value)
        for job_id, spec in session.execute(live)
        for value in spec.values()
        if isinstance(value, str) and value.startswith("ckpt-")
    ]


def _delete_permissions(session: Session, rows: Sequence[Checkpoint]) -> None:
    ids = [row.id for row in rows if row.is_epoch]
    if ids:
        session.execute(delete(CheckpointPermission).where(CheckpointPermission.checkpoint_id.in_(ids)))
