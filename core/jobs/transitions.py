"""What becomes of a job whose attempt has ended: queued again, paused, cancelled, or failed."""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.errors import WeightworksError
from core.jobs.database import read_clock
from core.jobs.dependencies import fail_dependents
from core.jobs.ending import end_job
from core.jobs.events import tell_status
from core.jobs.models.jobs import Attempt, Job
from core.jobs.status import TERMINAL, Status


def requeue(session: Session, job: Job, *, outcome: str) -> None:
    """The job can be claimed at once."""
    leave(session, job, Status.QUEUED, outcome=outcome)
    job.claimable_at = read_clock(session)


def pause(session: Session, job: Job, *, attempt: int, outcome: str, why: str) -> None:
    """Pause the job. The attempt does not count: it was to end."""
    leave(session, job, Status.PAUSED, outcome=outcome)
    job.attempt = attempt - 1
    tell_status(session, job, f"{why}; the job is paused.")


def cancel(session: Session, job: Job, why: str) -> None:
    """Cancel the job; those that wait for its weights fail. `why`: how its attempt ended."""
    leave(session, job, Status.CANCELLED, outcome="cancelled")
    tell_status(session, job, f"{why}. The job was cancelled.")
    fail_dependents(session, job)


def fail(session: Session, job: Job, error: WeightworksError) -> None:
    """Fail the job, and with it those that wait for its weights."""
    leave(session, job, Status.FAILED, outcome="failed")
    job.error = error.as_dict()
    tell_status(session, job, f"The job failed: {error.message}", "error")
    fail_dependents(session, job)


def leave(session: Session, job: Job, status: Status, *, outcome: str) -> None:
    """End the attempt; whoever asks for a pause from now on asks another one."""
    job.lease_expires_at, job.pause_requested = None, False
    if status in TERMINAL:
        end_job(session, job, status)
    else:
        job.status, job.owner = status, None
    close_attempt(session, job.id, job.fence, outcome)


def close_attempt(session: Session, job_id: str, fence: int, outcome: str) -> None:
    """Note how the attempt under this fence ended."""
    attempt = session.get(Attempt, (job_id, fence))
    if attempt is not None:
        attempt.ended_at, attempt.outcome = int(read_clock(session)), outcome
