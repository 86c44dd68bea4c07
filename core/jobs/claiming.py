"""How a worker takes a job: the one whose turn it is, by one `UPDATE` that raises the fence and sets the lease."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from core.jobs.database import database_now, read_clock
from core.jobs.events import tell_status
from core.jobs.fair_share import Share, front, open_devices, running_jobs, shares
from core.jobs.leases import Claim
from core.jobs.models.jobs import Attempt, Job
from core.jobs.models.projects import Project
from core.jobs.quotas import UNLIMITED, Quotas
from core.jobs.status import Status
from core.jobs.workers import is_to_drain


def claim_job(
    session: Session, *, owner: str, devices: Sequence[str], lease_seconds: float, defaults: Quotas = UNLIMITED
) -> Claim | None:
    """Take a job that is claimable on one of `devices`: of the project whose turn it is, by priority, then age.

    Fairness between projects comes first, lest the high priorities of one starve the others. `defaults`: the quotas of
    projects that have none of their own.
    """
    if is_to_drain(session, owner):  # it has not heard of that yet
        return None
    while True:
        try:
            return _claim_in_turn(session, owner, devices, lease_seconds, defaults)
        except _Overtaken:  # there is progress, and whose turn it is has changed
            continue


class _Overtaken(Exception):  # noqa: N818 - said in the past tense
    """Another worker has claimed a job of this project since it was looked at."""


def _claim_in_turn(
    session: Session, owner: str, devices: Sequence[str], lease_seconds: float, defaults: Quotas
) -> Claim | None:
    for share in shares(session, defaults):
        if share.is_full:
            continue
        # A savepoint: what is rolled back gives up its lock, so that nobody holds two projects' at once.
        savepoint = session.begin_nested()
        try:
            claim = _claim_of(session, share, owner, devices, lease_seconds)
        except _Overtaken:
            savepoint.rollback()
            raise
        if claim is not None:
            savepoint.commit()
            return claim
        savepoint.rollback()
    return None


def _claim_of(session: Session, share: Share, owner: str, devices: Sequence[str], lease_seconds: float) -> Claim | None:
    lock = select(Project.id).where(Project.id == share.project_id).with_for_update(key_share=True)
    session.execute(lock)
    if (session.scalar(select(running_jobs(share.project_id))) or 0) > share.running:
        raise _Overtaken
    first = front(session, share.project_id, open_devices(session, share, devices), limit=1, should_lock=True)
    if not first:
        return None
    now = int(read_clock(session))
    statement = (
        update(Job)
        .where(Job.id == first[0], Job.status == Status.QUEUED)
        .values(
            status=Status.RUNNING,
            fence=Job.fence + 1,
            attempt=Job.attempt + 1,
            owner=owner,
            lease_expires_at=database_now() + lease_seconds,
            started_at=case((Job.started_at.is_(None), now), else_=Job.started_at),
            progress=None,
        )
        .returning(Job)
        .execution_options(synchronize_session=False)
    )
    job = session.scalars(statement).one_or_none()
    if job is None:
        raise _Overtaken
    session.execute(update(Project).where(Project.id == share.project_id).values(claimed_at=database_now()))
    device = "cuda" if "cuda" in devices and job.device != "cpu" else "cpu"
    _start_attempt(session, job, owner=owner, device=device, now=now)
    return Claim(job.id, job.project_id, job.fence, job.attempt, job.max_attempts, job.spec)


def _start_attempt(session: Session, job: Job, *, owner: str, device: str, now: int) -> None:
    row = Attempt(job_id=job.id, fence=job.fence, attempt=job.attempt, owner=owner, device=device, started_at=now)
    session.add(row)
    message = f"Attempt {job.attempt} of {job.max_attempts} started on {owner}."
    tell_status(session, job, message)
