"""Jobs that take the weights of others: they wait for them, are freed by them, and fail with them."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from core.errors import WeightworksError
from core.jobs.ending import end_job
from core.jobs.events import tell_status
from core.jobs.models.jobs import Dependency, Job
from core.jobs.status import Status


def fail_dependents(session: Session, job: Job) -> None:
    """Fail every job that waits, however far along the chain, for weights that will not come."""
    dependents = select(Dependency.job_id).where(Dependency.needs_id == job.id)
    waiting = select(Job).where(Job.id.in_(dependents), Job.status.in_([Status.QUEUED, Status.PAUSED]))
    for dependent in session.scalars(waiting.with_for_update()).all():
        _fail_for(session, dependent, job)


def fail_dependents_of_lost(session: Session, job: Job) -> None:
    """Note whether `job` has to wait for weights; fail it if something that it needs has already ended without.

    What it needs is locked: whoever fails it meanwhile waits, and finds `job` among the dependents then.
    """
    needed = select(Job).join(Dependency, Dependency.needs_id == Job.id).where(Dependency.job_id == job.id)
    locked = needed.order_by(Job.id).with_for_update(read=True, of=Job).execution_options(populate_existing=True)
    found = session.scalars(locked).all()
    job.lacks_weights = any(one.status is not Status.SUCCEEDED for one in found)
    lost = [one for one in found if one.status in (Status.FAILED, Status.CANCELLED)]
    if lost:
        _fail_for(session, job, lost[0])


def free_dependents(session: Session, job: Job) -> None:
    """Have those that waited for this job's weights, and lack no others now, be claimable.

    They are locked first: when two jobs that one needs succeed at once, the later one sees that the other has.
    """
    dependents = select(Dependency.job_id).where(Dependency.needs_id == job.id)
    waiting = select(Job.id).where(Job.id.in_(dependents), Job.status.in_([Status.QUEUED, Status.PAUSED]))
    ids = session.scalars(waiting.order_by(Job.id).with_for_update()).all()
    if not ids:
        return
    needed = aliased(Job)
    lacking = select(Dependency.job_id).join(needed, Dependency.needs_id == needed.id)
    lacking = lacking.where(Dependency.job_id == Job.id, needed.status != Status.SUCCEEDED)
    freed = update(Job).where(Job.id.in_(ids), ~lacking.exists()).values(lacks_weights=False)
    session.execute(freed.execution_options(synchronize_session=False))


def _fail_for(session: Session, job: Job, needed: Job) -> None:
    error = WeightworksError(
        f"needs the weights of {needed.id}, which {needed.status}; retry that job, then this one",
        code="dependency_failed",
    )
    job.error = error.as_dict()
    end_job(session, job, Status.FAILED)
    tell_status(session, job, f"The job failed: it {error.message}.", level="error")
    fail_dependents(session, job)


def needs_of(session: Session, job_id: str) -> dict[str, Job]:
    """The jobs whose weights this one takes, by field."""
    query = select(Dependency.field, Job).join(Job, Dependency.needs_id == Job.id).where(Dependency.job_id == job_id)
    return {field: job for field, job in session.execute(query)}  # noqa: C416 - rows are not pairs to mypy


def devices_waiting_for(session: Session, job_id: str) -> list[str]:
    """The device of each queued job that takes this job's weights: whom to wake."""
    dependents = select(Dependency.job_id).where(Dependency.needs_id == job_id)
    return list(session.scalars(select(Job.device).where(Job.id.in_(dependents), Job.status == Status.QUEUED)))
