"""Rows as the answers that show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from api import schemas
from api.dependencies import Page
from core.errors import NotFound
from core.jobs import store
from core.jobs.inputs import lineage_of, model_of_job, resolve_references
from core.jobs.models import ApiKey, Checkpoint, Event, File, Job, Pipeline, TrainedModel
from core.jobs.status import Status

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


def file_object(file: File) -> schemas.FileObject:
    """A file."""
    return schemas.FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=file.purpose,
        sha256=file.sha256,
        kind=None if file.profile is None else file.profile.get("kind"),
        profile=file.profile,
    )


def job_object(session: Session, job: Job) -> schemas.JobObject:
    """A job, with everything that is known of it."""
    model = model_of_job(session, job.id) if job.status is Status.SUCCEEDED else None
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
        progress=_progress(job),
        metrics={name: value for name, value in job.metrics.items() if math.isfinite(value)},
        waiting=_waiting(session, job) if job.status is Status.QUEUED else None,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        attempts=[
            schemas.AttemptObject(
                attempt=row.attempt,
                fence=row.fence,
                worker=row.owner,
                started_at=row.started_at,
                ended_at=row.ended_at,
                outcome=row.outcome,
            )
            for row in store.list_attempts(session, job.id)
        ],
        cancel_requested=job.cancel_requested,
        error=None if job.error is None else schemas.ErrorBody(**job.error),
        lineage=model.lineage if model else _lineage(session, job),
        model=model.id if model else None,
        pipeline=job.pipeline_id,
        pipeline_step=job.pipeline_step,
    )


def _progress(job: Job) -> schemas.ProgressObject | None:
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


def _waiting(session: Session, job: Job) -> schemas.WaitingObject:
    worker = {"auto": "any", "cpu": "any", "cuda": "gpu"}[job.device]
    needs = [
        schemas.NeededJob(field=field, job=needed.id, status=needed.status)
        for field, needed in store.needs_of(session, job.id).items()
        if needed.status is not Status.SUCCEEDED
    ]
    if needs:
        names = ", ".join(f"{need.job} ({need.status})" for need in needs)
        reason = f"waits for the weights of {names}"
        return schemas.WaitingObject(reason=reason, position=None, ahead=None, needs=needs, worker=worker)
    ahead = store.jobs_ahead(session, job)
    reason = f"waits for a worker; {ahead} ahead" if ahead else "waits for a worker; it is next"
    return schemas.WaitingObject(reason=reason, position=ahead + 1, ahead=ahead, needs=[], worker=worker)


def _lineage(session: Session, job: Job) -> dict[str, Any]:
    """Where data and models come from, while the job has made no model that says so."""
    fields = {name: value for name, value in job.spec.items() if isinstance(value, str)}
    files = {name: value for name, value in fields.items() if value.startswith("file-")}
    models = {name: value for name, value in fields.items() if value.startswith("model-")}
    needs = {field: {"job": needed.id} for field, needed in store.needs_of(session, job.id).items()}
    known: dict[str, Any] = {}
    for name, value in {**files, **models}.items():
        try:
            place = {"files": {name: value}, "models": {}} if name in files else {"files": {}, "models": {name: value}}
            known |= lineage_of(resolve_references(session, project_id=job.project_id, job_id=job.id, **place))
        except NotFound:
            known[name] = {"deleted": value}
    return {**known, **needs}


def event_object(event: Event) -> schemas.EventObject:
    """An event."""
    return schemas.EventObject(
        id=f"{event.fence}-{event.seq}",
        type=event.type,
        level=event.level,
        message=event.message,
        created_at=event.created_at,
        data=event.data,
    )


def checkpoint_object(row: Checkpoint) -> schemas.CheckpointObject:
    """A checkpoint."""
    return schemas.CheckpointObject(
        id=row.id,
        created_at=row.created_at,
        job=row.job_id,
        step=row.step,
        bytes=row.bytes,
        sha256=row.sha256,
        metrics=row.metrics,
    )


def model_object(model: TrainedModel | File) -> schemas.ModelObject:
    """A model that a job made, or an uploaded base model."""
    if isinstance(model, File):
        made = {"name": model.filename, "method": None, "job": None, "metrics": {}, "lineage": {"sha256": model.sha256}}
    else:
        metrics = {name: value for name, value in model.metrics.items() if math.isfinite(value)}
        made = {"name": model.name, "method": model.method, "job": model.job_id, "metrics": metrics}
        made["lineage"] = model.lineage
    return schemas.ModelObject(
        id=model.id,
        created=model.created_at,
        created_at=model.created_at,
        owned_by=model.project_id,
        bytes=model.bytes,
        **made,
    )


def pipeline_object(session: Session, pipeline: Pipeline) -> schemas.PipelineObject:
    """A pipeline and its jobs, by their local names."""
    jobs = store.jobs_of_pipeline(session, pipeline.id)
    return schemas.PipelineObject(
        id=pipeline.id,
        created_at=pipeline.created_at,
        name=pipeline.name,
        status=_pipeline_status([job.status for job in jobs]),
        jobs={job.pipeline_step or job.id: job_object(session, job) for job in jobs},
    )


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


def key_object(key: ApiKey) -> schemas.ApiKeyObject:
    """An API key."""
    return schemas.ApiKeyObject(
        id=key.id, name=key.name, role=key.role, project=key.project_id, hint=key.hint, created_at=key.created_at
    )
