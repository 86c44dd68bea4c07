"""Jobs, as the API answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from api.answers.answer import Answer
from api.answers.errors import ErrorObject, error_object
from api.answers.lineage import Origin, lineages_of
from api.answers.numbers import finite
from api.answers.waiting import WaitingObject, waiting_object
from core.jobs.details import Details, details_of
from core.jobs.models.jobs import Attempt, Job
from core.jobs.status import Status
from core.settings import Settings


class ProgressObject(Answer):
    """How far a job is."""

    step: int
    total: int | None
    fraction: float | None
    rate: float | None = Field(description="Steps a second.")
    estimated_finish: int | None


class AttemptObject(Answer):
    """One attempt at a job."""

    attempt: int
    fence: int
    worker: str
    started_at: int
    ended_at: int | None
    outcome: str | None


class JobObject(Answer):
    """A job."""

    id: str
    object: Literal["job"] = "job"
    created_at: int
    started_at: int | None
    finished_at: int | None
    method: str
    name: str | None
    status: Status
    spec: dict[str, Any]
    metadata: dict[str, str]
    priority: int
    progress: ProgressObject | None
    metrics: dict[str, float | None]
    waiting: WaitingObject | None
    attempt: int
    max_attempts: int
    attempts: list[AttemptObject]
    cancel_requested: bool
    pause_requested: bool = Field(description="It runs, and its worker is about to leave it off.")
    error: ErrorObject | None
    lineage: dict[str, Origin] = Field(description="Where data and models come from, by the spec's field.")
    model: str | None
    pipeline: str | None
    pipeline_step: str | None


def job_object(session: Session, job: Job, settings: Settings) -> JobObject:
    """A job, with everything that is known of it."""
    return job_objects(session, [job], settings)[0]


def job_objects(session: Session, jobs: Sequence[Job], settings: Settings) -> list[JobObject]:
    """Jobs of one project, with everything that is known of them."""
    if not jobs:
        return []
    details = details_of(session, jobs[0].project_id, jobs, settings)
    lineages = lineages_of(session, jobs, details)
    return [_job_object(job, details[job.id], lineages[job.id]) for job in jobs]


def _job_object(job: Job, details: Details, lineage: dict[str, Any]) -> JobObject:
    return JobObject(
        id=job.id,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        method=job.method,
        name=job.name,
        status=job.status,
        spec=job.spec,
        metadata=job.tags,
        priority=job.priority,
        progress=progress_object(job),
        metrics=finite(job.metrics),
        waiting=waiting_object(job, details),
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        attempts=[_attempt_object(row) for row in details.attempts],
        cancel_requested=job.cancel_requested,
        pause_requested=job.pause_requested,
        error=None if job.error is None else error_object(job.error),
        lineage=lineage,
        model=details.model.id if details.model else None,
        pipeline=job.pipeline_id,
        pipeline_step=job.pipeline_step,
    )


def _attempt_object(row: Attempt) -> AttemptObject:
    return AttemptObject(
        attempt=row.attempt,
        fence=row.fence,
        worker=row.owner,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
    )


def progress_object(job: Job) -> ProgressObject | None:
    """How far a job is; None before its worker has said so."""
    known = job.progress
    if known is None:
        return None
    step, total, rate = known["step"], known.get("total"), known.get("rate")
    left = None if total is None or not rate else (total - step) / rate
    return ProgressObject(
        step=step,
        total=total,
        fraction=step / total if total else None,
        rate=rate,
        estimated_finish=int(known["at"] + left) if left is not None and job.status is Status.RUNNING else None,
    )
