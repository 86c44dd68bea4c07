"""A job in a worker's hands. Every write of a worker carries the fence; no row means: leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from core.jobs.database import change_rows, database_now
from core.jobs.models.jobs import Job
from core.jobs.status import Asked, Status


class LeaseLost(Exception):  # noqa: N818 - not an error of the job's
    """The job is someone else's now, or over: stop, and write nothing more."""


@dataclass(frozen=True)
class Claim:
    """A job in this worker's hands, until its lease ends."""

    job_id: str
    project_id: str
    fence: int
    attempt: int
    max_attempts: int
    spec: Mapping[str, Any]


def renew_lease(
    session: Session,
    claim: Claim,
    *,
    lease_seconds: float,
    progress: Mapping[str, Any] | None,
    metrics: Mapping[str, float],
) -> Asked | None:
    """Keep the job, and note how far it is; answers what is asked of it: a cancel before a pause. Raises LeaseLost."""
    values: dict[str, Any] = {"lease_expires_at": database_now() + lease_seconds, "metrics": dict(metrics)}
    if progress is not None:
        values["progress"] = dict(progress)
    asked = _fenced(claim).values(**values).returning(Job.cancel_requested, Job.pause_requested)
    found = session.execute(asked).one_or_none()
    if found is None:
        raise LeaseLost(claim.job_id)
    if found.cancel_requested:
        return Asked.CANCEL
    return Asked.PAUSE if found.pause_requested else None


def locked_job(session: Session, claim: Claim) -> Job:
    """The claim's job, locked as `lock_claim` locks it."""
    lock_claim(session, claim)
    return session.get_one(Job, claim.job_id, populate_existing=True)


def lock_claim(session: Session, claim: Claim) -> None:
    """Make sure, until the transaction ends, that the claim still holds."""
    if change_rows(session, _fenced(claim).values(fence=claim.fence)) == 0:
        raise LeaseLost(claim.job_id)


def _fenced(claim: Claim) -> Any:
    held = (Job.id == claim.job_id, Job.fence == claim.fence, Job.status == Status.RUNNING)
    return update(Job).where(*held).execution_options(synchronize_session=False)
