"""What is asked of a job: to be cancelled, paused, resumed, retried."""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.errors import Conflict
from core.jobs.database import read_clock
from core.jobs.dependencies import fail_dependents, fail_dependents_of_lost
from core.jobs.ending import end_job
from core.jobs.events import tell_status
from core.jobs.models.jobs import Job
from core.jobs.status import TERMINAL, Status
from core.jobs.store import get_job


def cancel_job(session: Session, project_id: str, job_id: str) -> Job:
    """Cancel at once what does not run; ask the worker to stop what does. Raises Conflict if the job has ended."""
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status in TERMINAL:
        raise Conflict(f"the job is {job.status} already: it cannot be cancelled", param="job_id")
    if job.status is Status.RUNNING:
        job.cancel_requested = True
        return job
    was = "before it ran" if job.fence == 0 else f"while it was {job.status}"
    end_job(session, job, Status.CANCELLED)
    tell_status(session, job, f"The job was cancelled {was}.")
    fail_dependents(session, job)
    return job


def pause_job(session: Session, project_id: str, job_id: str) -> Job:
    """Pause at once what is queued; ask the worker to leave off what runs. Raises Conflict in any other state."""
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status is Status.QUEUED:
        job.status = Status.PAUSED
        tell_status(session, job, "The job was paused.")
    elif job.status is not Status.RUNNING:
        raise Conflict(f"the job is {job.status}: only a queued or running job can be paused", param="job_id")
    elif job.cancel_requested:
        raise Conflict("the job is running and about to be cancelled: it cannot be paused", param="job_id")
    else:
        job.pause_requested = True
    return job


def resume_job(session: Session, project_id: str, job_id: str) -> Job:
    """Queue a paused job, or take back a pause that was not acted upon. Raises Conflict in any other state.

    A job that goes on from a checkpoint does so from its last one.
    """
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status is Status.PAUSED:
        job.status = Status.QUEUED
        job.claimable_at = read_clock(session)
        tell_status(session, job, "The job was resumed; it waits for a worker.")
    elif not job.pause_requested:
        raise Conflict(f"the job is {job.status}: only a paused job can be resumed", param="job_id")
    job.pause_requested = False
    return job


def retry_job(session: Session, project_id: str, job_id: str) -> Job:
    """Queue a failed or cancelled job again, from its last checkpoint; raises Conflict in any other state."""
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status not in (Status.FAILED, Status.CANCELLED):
        raise Conflict(f"the job is {job.status}: only a failed or cancelled job can be retried", param="job_id")
    job.status, job.finished_at, job.error = Status.QUEUED, None, None
    job.attempt, job.cancel_requested, job.pause_requested = 0, False, False
    job.claimable_at = read_clock(session)
    tell_status(session, job, "The job was queued again.")
    fail_dependents_of_lost(session, job)
    return job
