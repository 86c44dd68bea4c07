"""Pipelines, as the API answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy.orm import Session

from api.answers.answer import Answer
from api.answers.jobs import JobObject, job_objects
from core.jobs.models.jobs import Pipeline
from core.jobs.pipelines import jobs_of_pipelines
from core.jobs.status import Status
from core.settings import Settings


class PipelineObject(Answer):
    """Jobs that were posted together."""

    id: str
    object: Literal["pipeline"] = "pipeline"
    created_at: int
    name: str | None
    status: Status
    jobs: dict[str, JobObject]


def pipeline_objects(session: Session, pipelines: Sequence[Pipeline], settings: Settings) -> list[PipelineObject]:
    """Pipelines and their jobs, by their local names."""
    jobs = jobs_of_pipelines(session, [pipeline.id for pipeline in pipelines])
    shown = {job.id: job for job in job_objects(session, jobs, settings)}
    found = []
    for pipeline in pipelines:
        mine = {job.pipeline_step or job.id: shown[job.id] for job in jobs if job.pipeline_id == pipeline.id}
        found.append(
            PipelineObject(
                id=pipeline.id,
                created_at=pipeline.created_at,
                name=pipeline.name,
                status=_pipeline_status([job.status for job in mine.values()]),
                jobs=mine,
            )
        )
    return found


def _pipeline_status(statuses: Sequence[Status]) -> Status:
    """Running while any runs, then the worst of what came out."""
    if any(status is Status.RUNNING for status in statuses):
        return Status.RUNNING
    for status in (Status.QUEUED, Status.PAUSED):
        if status in statuses:
            return Status.RUNNING if Status.SUCCEEDED in statuses else status
    for status in (Status.FAILED, Status.CANCELLED):
        if status in statuses:
            return status
    return Status.SUCCEEDED
