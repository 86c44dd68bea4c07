"""Workers as they tell of themselves: each slot says every few seconds that it is there, and hears whether to drain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.database import database_now, read_clock
from core.jobs.models.jobs import Job
from core.jobs.models.workers import WorkerSlot
from core.jobs.status import Status

GONE_BEATS = 10  # who has said nothing for so many is gone


@dataclass(frozen=True)
class Workforce:
    """Who could take what waits."""

    workers: int = 0
    with_gpu: int = 0
    draining: int = 0
    draining_with_gpu: int = 0

    @property
    def cpu_only(self) -> int:
        """Those that take new jobs and have no GPU."""
        return self.workers - self.with_gpu - (self.draining - self.draining_with_gpu)


def beat(session: Session, owner: str, *, host: str, has_gpu: bool, is_draining: bool, is_asked: bool) -> bool:
    """Say that the worker is there; answers whether it is asked to drain.

    `is_asked`: what it last heard, for a row that was removed meanwhile.
    """
    seen = {"seen_at": database_now(), "is_draining": is_draining, "has_gpu": has_gpu}
    row = update(WorkerSlot).where(WorkerSlot.id == owner).values(seen).returning(WorkerSlot.drain_requested)
    asked = session.scalar(row.execution_options(synchronize_session=False))
    if asked is not None:
        return asked
    now = read_clock(session)
    times = {"started_at": now, "seen_at": now}
    flags = {"has_gpu": has_gpu, "is_draining": is_draining, "drain_requested": is_asked}
    session.add(WorkerSlot(id=owner, host=host, **times, **flags))
    return is_asked


def leave(session: Session, owner: str) -> None:
    """Say that the worker is gone."""
    session.execute(delete(WorkerSlot).where(WorkerSlot.id == owner))


def living_workers(session: Session, *, beat_seconds: float) -> list[WorkerSlot]:
    """The workers that have told of themselves a moment ago, by (started_at, id)."""
    query = select(WorkerSlot).where(~_is_gone(beat_seconds)).order_by(WorkerSlot.started_at, WorkerSlot.id)
    return list(session.scalars(query))


def workforce(session: Session, *, beat_seconds: float) -> Workforce:
    """How many there are, of which kind."""
    workers = living_workers(session, beat_seconds=beat_seconds)
    draining = [one for one in workers if one.is_draining or one.drain_requested]
    return Workforce(
        workers=len(workers),
        with_gpu=sum(one.has_gpu for one in workers),
        draining=len(draining),
        draining_with_gpu=sum(one.has_gpu for one in draining),
    )


def count_living(session: Session, *, beat_seconds: float) -> int:
    """How many workers have told of themselves a moment ago."""
    return session.scalar(select(func.count()).select_from(WorkerSlot).where(~_is_gone(beat_seconds))) or 0


def has_gone_workers(session: Session, *, beat_seconds: float) -> bool:
    """Whether there is anything for `remove_gone` to do."""
    return session.scalar(select(WorkerSlot.id).where(_is_gone(beat_seconds)).limit(1)) is not None


def remove_gone(session: Session, *, beat_seconds: float) -> None:
    """Forget the workers that say nothing any more; one that lives writes itself down again."""
    session.execute(delete(WorkerSlot).where(_is_gone(beat_seconds)))


def ask_to_drain(session: Session, worker_id: str, *, should_drain: bool) -> None:
    """Ask a worker to give its job back and take no more, or to take jobs again; raises NotFound."""
    asked = update(WorkerSlot).where(WorkerSlot.id == worker_id).values(drain_requested=should_drain)
    if session.scalar(asked.returning(WorkerSlot.id).execution_options(synchronize_session=False)) is None:
        raise NotFound(f"there is no worker '{worker_id}'", param="worker_id")


def is_to_drain(session: Session, owner: str) -> bool:
    """Whether the worker is asked to take no more jobs."""
    return bool(session.scalar(select(WorkerSlot.drain_requested).where(WorkerSlot.id == owner)))


def jobs_held(session: Session, owners: Sequence[str]) -> dict[str, Job]:
    """The running job of each of these workers that has one."""
    query = select(Job).where(Job.status == Status.RUNNING, Job.owner.in_(owners))
    return {job.owner or "": job for job in session.scalars(query)}


def _is_gone(beat_seconds: float) -> Any:
    """A time that lies ahead was written before the database's clock jumped back."""
    silence = GONE_BEATS * beat_seconds
    return or_(WorkerSlot.seen_at < database_now() - silence, WorkerSlot.seen_at > database_now() + silence)
