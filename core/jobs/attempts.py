"""Attempts that end without a result: failed, or given back."""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.errors import WeightworksError
from core.jobs import transitions
from core.jobs.claimable import retry_pause
from core.jobs.events import tell_status
from core.jobs.leases import Claim, locked_job
from core.jobs.status import Status


def fail_job(
    session: Session, claim: Claim, error: WeightworksError, *, is_retryable: bool, retry_seconds: float = 0.0
) -> Status:
    """End a failed attempt, and answer what became of the job. Raises LeaseLost.

    Where another attempt may help, the job is queued again while attempts are left, and claimable after a pause that
    doubles with each; if a pause was asked for, it is paused. If a cancel was asked for, it is cancelled, whatever the
    error.
    """
    job = locked_job(session, claim)
    job.attempt = claim.attempt
    if job.cancel_requested:
        transitions.cancel(session, job, f"Attempt {job.attempt} failed: {error.message}")
    elif is_retryable and job.pause_requested:
        transitions.pause(session, job, attempt=claim.attempt, outcome="failed", why=f"Attempt {job.attempt} failed")
    elif is_retryable and job.attempt < job.max_attempts:
        transitions.requeue(session, job, outcome="failed")
        seconds = retry_pause(retry_seconds, job.attempt)
        job.claimable_at += seconds
        message = f"Attempt {job.attempt} failed: {error.message}. The next one can start in {seconds:g} seconds."
        tell_status(session, job, message, "warn")
    else:
        transitions.fail(session, job, error)
    return job.status


def release_job(session: Session, claim: Claim, *, reason: str = "The worker leaves") -> Status:
    """Give a job back unfinished, without using up the attempt; answers what became of it. Raises LeaseLost.

    It is queued again, unless a cancel or a pause was asked for.
    """
    job = locked_job(session, claim)
    job.attempt = claim.attempt - 1
    if job.cancel_requested:
        transitions.cancel(session, job, reason)
    elif job.pause_requested:
        transitions.pause(session, job, attempt=claim.attempt, outcome="paused", why=reason)
    else:
        transitions.requeue(session, job, outcome="released")
        tell_status(session, job, f"{reason}; the job waits for another attempt.")
    return job.status


def forgive_attempt(session: Session, claim: Claim) -> None:
    """Give the attempt back at once, for a worker that must leave: it may be killed before it has released the job.

    Should the attempt end by itself meanwhile, it counts. Raises LeaseLost.
    """
    locked_job(session, claim).attempt = claim.attempt - 1
