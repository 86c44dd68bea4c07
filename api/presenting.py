"""Rows as the answers that show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from api import schemas
from api.dependencies import Page
from api.lineage import lineages_of, origins_of
from api.purposes import PurposeFor
from api.waiting import waiting_object
from core.jobs.details import Details, details_of
from core.jobs.models.files import File, UploadPart
from core.jobs.models.jobs import Attempt, Event, Job, Pipeline
from core.jobs.models.projects import ApiKey, Project
from core.jobs.models.results import Checkpoint, TrainedModel
from core.jobs.names import checkpoint_name
from core.jobs.pipelines import jobs_of_pipelines
from core.jobs.status import Status
from core.jobs.uploads import Seen
from core.settings import Settings

Item = TypeVar("Item", bound=BaseModel)


def page_of(items: Sequence[Item], page: Page) -> schemas.ListOf[Item]:
    """A list's page out of `limit + 1` items: the last one only tells that there are more."""
    shown = list(items[: page.limit])
    ids = [str(getattr(item, "id", None)) for item in shown]
    return schemas.ListOf[Item](
        data=shown,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=len(items) > page.limit,
    )


def file_object(file: File, purposes: PurposeFor) -> schemas.FileObject:
    """A file; `purposes`: what its purpose is called."""
    return schemas.FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=purposes(file.purpose),
        sha256=file.sha256,
        kind=None if file.profile is None else file.profile.get("kind"),
        profile=file.profile,
    )


def upload_object(seen: Seen, purposes: PurposeFor, *, max_part_bytes: int) -> schemas.UploadObject:
    """An upload in parts; `purposes`: what the purpose of its file is called."""
    upload = seen.upload
    return schemas.UploadObject(
        id=upload.id,
        bytes=upload.bytes,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        filename=upload.filename,
        purpose=upload.purpose,
        mime_type=upload.mime_type,
        status=seen.status,
        expires_after=None if not upload.file_seconds else schemas.ExpiryObject(seconds=upload.file_seconds),
        file=None if seen.file is None else file_object(seen.file, purposes),
        max_part_bytes=max_part_bytes,
    )


def part_object(part: UploadPart) -> schemas.PartObject:
    """A part of an upload."""
    return schemas.PartObject(
        id=part.id,
        created_at=part.created_at,
        upload_id=part.upload_id,
        bytes=part.bytes,
        sha256=part.sha256,
        md5=part.md5,
    )


def job_object(session: Session, job: Job, settings: Settings) -> schemas.JobObject:
    """A job, with everything that is known of it."""
    return job_objects(session, [job], settings)[0]


def job_objects(session: Session, jobs: Sequence[Job], settings: Settings) -> list[schemas.JobObject]:
    """Jobs of one project, with everything that is known of them."""
    if not jobs:
        return []
    details = details_of(session, jobs[0].project_id, jobs, settings)
    lineages = lineages_of(session, jobs, details)
    return [_job_object(job, details[job.id], lineages[job.id]) for job in jobs]


def _job_object(job: Job, details: Details, lineage: dict[str, Any]) -> schemas.JobObject:
    return schemas.JobObject(
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


def error_object(error: Mapping[str, Any]) -> schemas.ErrorObject:
    """Why something failed, as its row has it."""
    known = schemas.ErrorObject.model_fields
    return schemas.ErrorObject(**{name: value for name, value in error.items() if name in known})


def finite(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers as JSON has them: null for what is infinite or not a number."""
    return {name: finite_value(value) for name, value in metrics.items()}


def finite_value(value: float) -> float | None:
    """The number, or None for what JSON has no number for."""
    return value if math.isfinite(value) else None


def _attempt_object(row: Attempt) -> schemas.AttemptObject:
    return schemas.AttemptObject(
        attempt=row.attempt,
        fence=row.fence,
        worker=row.owner,
        started_at=row.started_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
    )


def progress_object(job: Job) -> schemas.ProgressObject | None:
    """How far a job is; None before its worker has said so."""
    known = job.progress
    if known is None:
        return None
    step, total, rate = known["step"], known.get("total"), known.get("rate")
    left = None if total is None or not rate else (total - step) / rate
    return schemas.ProgressObject(
        step=step,
        total=total,
        fraction=step / total if total else None,
        rate=rate,
        estimated_finish=int(known["at"] + left) if left is not None and job.status is Status.RUNNING else None,
    )


def event_object(event: Event) -> schemas.EventObject:
    """An event."""
    return schemas.EventObject(
        id=f"{event.fence}-{event.seq}",
        type=event.type,
        level=event.level,
        message=event.message,
        created_at=event.created_at,
        data=finite_data(event.data),
    )


def finite_data(data: dict[str, Any]) -> dict[str, Any]:
    """An event's data as JSON has it."""
    return {**data, "values": finite(data["values"])} if "values" in data else data


def checkpoint_object(row: Checkpoint) -> schemas.CheckpointObject:
    """A checkpoint."""
    return schemas.CheckpointObject(
        id=row.id,
        created_at=row.created_at,
        job=row.job_id,
        step=row.step,
        is_epoch=row.is_epoch,
        bytes=row.bytes,
        sha256=row.sha256,
        metrics=finite(row.metrics),
    )


def sample_object(event: Event) -> schemas.SampleObject:
    """A sample, told by the event of its making."""
    data = event.data
    return schemas.SampleObject(
        id=f"{event.fence}-{event.seq}",
        created_at=event.created_at,
        job=event.job_id,
        name=data["name"],
        step=data["step"],
        caption=event.message,
        media_type=data["media_type"],
        bytes=data["bytes"],
        sha256=data["sha256"],
    )


def model_object(model: TrainedModel | File, *, project: str) -> schemas.ModelObject:
    """A model that a job made, or an uploaded base model."""
    told: dict[str, Any] = (
        {
            "name": model.filename,
            "method": None,
            "job": None,
            "metrics": {},
            "lineage": {"upload": schemas.Origin(file=model.id, filename=model.filename, sha256=model.sha256)},
        }
        if isinstance(model, File)
        else {
            "name": model.name,
            "method": model.method,
            "job": model.job_id,
            "metrics": finite(model.metrics),
            "lineage": origins_of(model.lineage),
        }
    )
    created = model.created_at
    alias = None if isinstance(model, File) else model.alias
    return schemas.ModelObject(
        id=alias or model.id, created=created, created_at=created, owned_by=project, bytes=model.bytes, **told
    )


def checkpoint_model_object(session: Session, checkpoint: Checkpoint) -> schemas.ModelObject:
    """A checkpoint as a model; it may be another project's that permits it."""
    job = session.get_one(Job, checkpoint.job_id)
    owner = session.get_one(Project, job.project_id).name
    return schemas.ModelObject(
        id=checkpoint_name(job, owner, checkpoint.step),
        created=checkpoint.created_at,
        created_at=checkpoint.created_at,
        owned_by=owner,
        name=job.name,
        method=job.method,
        job=job.id,
        bytes=checkpoint.bytes,
        metrics=finite(checkpoint.metrics),
        lineage={},
    )


def pipeline_objects(
    session: Session, pipelines: Sequence[Pipeline], settings: Settings
) -> list[schemas.PipelineObject]:
    """Pipelines and their jobs, by their local names."""
    jobs = jobs_of_pipelines(session, [pipeline.id for pipeline in pipelines])
    shown = {job.id: job for job in job_objects(session, jobs, settings)}
    found = []
    for pipeline in pipelines:
        mine = {job.pipeline_step or job.id: shown[job.id] for job in jobs if job.pipeline_id == pipeline.id}
        found.append(
            schemas.PipelineObject(
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


def key_object(key: ApiKey, *, project: str) -> schemas.ApiKeyObject:
    """An API key."""
    return schemas.ApiKeyObject(
        id=key.id, name=key.name, role=key.role, project=project, hint=key.hint, created_at=key.created_at
    )
