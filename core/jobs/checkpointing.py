"""A job's checkpoints: added as it runs, of which a few are kept, and listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs.checkpoints import remove_checkpoints
from core.jobs.database import read_clock
from core.jobs.ids import new_id
from core.jobs.leases import Claim, lock_claim
from core.jobs.models.results import Checkpoint

KEPT, KEPT_EPOCHS = 2, 3


@dataclass(frozen=True)
class Added:
    """A checkpoint that was noted, and the storage keys of older ones that are no longer needed."""

    id: str
    superseded: list[str]


def add_checkpoint(
    session: Session,
    claim: Claim,
    *,
    key: str,
    step: int,
    size: int,
    sha256: str,
    metrics: Mapping[str, float],
    is_epoch: bool = False,
) -> Added:
    """Note a checkpoint in storage: this one and the furthest before it are kept, and of epochs the furthest three.

    So are those that an unfinished job starts from.

    One of the same step takes the place of an earlier attempt's, and its id: that may be known as a model.
    """
    lock_claim(session, claim)
    query = select(Checkpoint).where(Checkpoint.job_id == claim.job_id).order_by(Checkpoint.step.desc())
    known = list(session.scalars(query))
    same = next((old for old in known if old.step == step), None)
    row = Checkpoint(
        id=new_id("ckpt") if same is None else same.id,
        job_id=claim.job_id,
        fence=claim.fence,
        step=step,
        key=key,
        bytes=size,
        sha256=sha256,
        metrics=dict(metrics),
        created_at=int(read_clock(session)),
        is_epoch=is_epoch or (same is not None and same.is_epoch),
    )
    superseded = [] if same is None or same.key == key else [same.key]
    row = session.merge(row)
    superseded += remove_checkpoints(session, _too_many([row, *(old for old in known if old is not same)]))
    return Added(row.id, superseded)


def _too_many(known: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those of a job's checkpoints, the newest first, that are not kept."""
    of_epochs = [row for row in known[KEPT:] if row.is_epoch]
    kept = sum(row.is_epoch for row in known[:KEPT])
    return [row for row in known[KEPT:] if row not in of_epochs[: max(0, KEPT_EPOCHS - kept)]]


def latest_checkpoints(session: Session, job_id: str) -> list[Checkpoint]:
    """The checkpoints to try, the furthest first."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return list(session.scalars(query.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc())))


def list_checkpoints(session: Session, job_id: str) -> list[Checkpoint]:
    """The job's checkpoints, newest first."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return list(session.scalars(query.order_by(Checkpoint.fence.desc(), Checkpoint.step.desc())))
