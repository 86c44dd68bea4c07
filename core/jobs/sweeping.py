"""Jobs whose workers were lost: which leases look so, and what becomes of the jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from core.errors import WeightworksError
from core.jobs import transitions
from core.jobs.database import database_now
from core.jobs.events import insert_events, tell_status
from core.jobs.models.jobs import Attempt, Event, Job
from core.jobs.status import Status


@dataclass(frozen=True)
class Suspect:
    """A lease that its worker seems to have lost, as it was seen."""

    job_id: str
    fence: int
    lease_expires_at: float


@dataclass(frozen=True)
class Swept:
    """What a sweep did."""

    requeued: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # failed, cancelled, or paused


def held_leases(session: Session) -> list[Suspect]:
    """The lease of every running job, as it is now."""
    return _leases(session)


def suspect_leases(session: Session, *, lease_seconds: float) -> list[Suspect]:
    """Leases that have ended by the database's clock, or that end later than any renewal can have said.

    Neither proves a worker lost: the clock may have jumped, forward or back. What a living worker renews changes.
    """
    now = database_now()
    is_odd = or_(Job.lease_expires_at < now, Job.lease_expires_at > now + lease_seconds + 1)
    return _leases(session, is_odd)


def _leases(session: Session, *conditions: ColumnElement[bool]) -> list[Suspect]:
    query = select(Job.id, Job.fence, Job.lease_expires_at).where(Job.status == Status.RUNNING, *conditions)
    return [Suspect(job_id, fence, ends_at or 0.0) for job_id, fence, ends_at in session.execute(query)]


def sweep_expired(session: Session, suspects: Collection[Suspect], said: Sequence[Event] = ()) -> Swept:
    """Take back the jobs whose leases are as they were seen: queue them again, or fail them after the last attempt.

    Whoever calls has made sure, by looking twice, that a living worker would have renewed meanwhile. `said`: what the
    lost workers may have told only Redis. It is written once a job's row is locked: a worker that is stopped in the
    midst of writing the same events holds that row, which is then passed over instead of waited for.
    """
    swept = Swept()
    for one in suspects:
        unchanged = (Job.fence == one.fence, Job.lease_expires_at == one.lease_expires_at)
        query = select(Job).where(Job.id == one.job_id, Job.status == Status.RUNNING, *unchanged)
        job = session.scalar(query.with_for_update(skip_locked=True))
        if job is None:
            continue
        insert_events(session, [event for event in said if event.job_id == job.id])
        _take_back(session, job)
        (swept.requeued if job.status is Status.QUEUED else swept.ended).append(job.id)
    return swept


def _take_back(session: Session, job: Job) -> None:
    # A new fence for what is said next: the lost worker's last events may be in Redis only, under the old one.
    claimed = session.get(Attempt, (job.id, job.fence))
    attempt = claimed.attempt if claimed else job.attempt  # the row's may be forgiven already
    lost = f"worker {job.owner} was lost in attempt {attempt}"
    transitions.close_attempt(session, job.id, job.fence, "lost")
    job.fence += 1
    if job.cancel_requested:
        transitions.cancel(session, job, f"The {lost}")
    elif job.pause_requested:
        transitions.pause(session, job, attempt=attempt, outcome="lost", why=f"The {lost}")
    elif job.attempt < job.max_attempts:
        transitions.requeue(session, job, outcome="lost")
        tell_status(session, job, f"The {lost}; the job waits for the next attempt.", "warn")
    else:
        transitions.fail(session, job, WeightworksError(f"{lost}, the last one allowed", code="worker_lost"))


def fences_at_rest(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Those of these jobs that no worker holds, each with its last fence: whoever claims it next has a higher one."""
    query = select(Job.id, Job.fence).where(Job.id.in_(job_ids), Job.status != Status.RUNNING)
    return {job_id: fence for job_id, fence in session.execute(query)}  # noqa: C416 - rows are not pairs to mypy
