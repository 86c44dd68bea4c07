"""What a queued job must fulfil to be claimed: its needs, and the pause after an attempt that failed."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_

from core.jobs.database import database_now
from core.jobs.models.jobs import Job
from core.jobs.status import Status

LONGEST_RETRY_SECONDS = 60.0


def retry_pause(retry_seconds: float, attempt: int) -> float:
    """Seconds between the end of this failed attempt and the next one."""
    return float(min(retry_seconds * 2 ** (attempt - 1), LONGEST_RETRY_SECONDS))


def is_claimable() -> ColumnElement[bool]:
    """Whether a queued job can be claimed now, by a worker that has its device, as far as its project may run it."""
    return and_(Job.status == Status.QUEUED, ~Job.lacks_weights, ~is_backing_off())


def is_backing_off() -> ColumnElement[bool]:
    """Whether a job pauses after an attempt that failed.

    What lies further ahead than any pause does was written before the database's clock jumped back.
    """
    now = database_now()
    return and_(Job.attempt > 0, Job.claimable_at > now, Job.claimable_at <= now + LONGEST_RETRY_SECONDS)
