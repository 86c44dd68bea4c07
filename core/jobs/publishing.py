"""How a job ends with what it learned: its artifacts and its model, published by the transaction that ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from core.jobs.artifacts import Published, publish
from core.jobs.database import read_clock
from core.jobs.dependencies import fail_dependents, free_dependents
from core.jobs.events import NewEvent, add_event, status_event, tell_status
from core.jobs.files import FINE_TUNE_RESULTS, STEP_METRICS, add_file
from core.jobs.ids import new_id
from core.jobs.leases import Claim, locked_job
from core.jobs.models.jobs import Job
from core.jobs.models.projects import Project
from core.jobs.models.results import TrainedModel
from core.jobs.names import fine_tuned_name
from core.jobs.status import Status
from core.jobs.transitions import leave


def succeed_job(
    session: Session,
    claim: Claim,
    *,
    files: Sequence[Published],
    metrics: Mapping[str, float],
    lineage: Mapping[str, Any],
) -> str:
    """Publish the artifacts and the model, and end the job, in one step; answers the model's id. Raises LeaseLost."""
    job = _end(session, claim, Status.SUCCEEDED, metrics=metrics)
    session.flush()
    free_dependents(session, job)
    publish(session, job.id, files)
    model = TrainedModel(
        id=new_id("model"),
        project_id=job.project_id,
        job_id=job.id,
        name=job.name,
        method=job.method,
        bytes=sum(file.bytes for file in files),
        metrics=dict(metrics),
        lineage=dict(lineage),
        created_at=int(read_clock(session)),
    )
    if job.request is not None:
        model.alias = fine_tuned_name(job, session.get_one(Project, job.project_id).name)
        _give_results(session, job, files)
    session.add(model)
    event = NewEvent("status", "The job succeeded.", data={**status_event(job, "").data, "model": model.id})
    add_event(session, job.id, fence=job.fence, event=event)
    return model.id


def _give_results(session: Session, job: Job, files: Sequence[Published]) -> None:
    """Have the job's metrics, step by step, be a file of the project; its content is in storage already."""
    for file in files:
        if file.path == STEP_METRICS:
            job.result_file_id = add_file(
                session,
                job.project_id,
                filename=STEP_METRICS,
                purpose=FINE_TUNE_RESULTS,
                size=file.bytes,
                sha256=file.sha256,
                profile=None,
            ).id


def cancel_running_job(
    session: Session, claim: Claim, *, files: Sequence[Published], metrics: Mapping[str, float]
) -> None:
    """End a job that was told to stop, publishing what it learned until then. Raises LeaseLost."""
    job = _end(session, claim, Status.CANCELLED, metrics=metrics)
    publish(session, job.id, files)
    tell_status(session, job, "The job was cancelled; what it learned until then can be downloaded.")
    fail_dependents(session, job)


def _end(session: Session, claim: Claim, status: Status, *, metrics: Mapping[str, float]) -> Job:
    job = locked_job(session, claim)
    job.attempt, job.metrics = claim.attempt, dict(metrics) or job.metrics
    leave(session, job, status, outcome=status.value)
    return job
