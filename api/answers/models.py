"""Models as the API answers them: trained, uploaded, or checkpoints."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from api.answers.answer import Answer
from api.answers.lineage import Origin, origins_of
from api.answers.numbers import finite
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.models.projects import Project
from core.jobs.models.results import Checkpoint, TrainedModel
from core.jobs.names import checkpoint_name


class ModelObject(Answer):
    """A model: one that a job made, or an uploaded base model."""

    id: str = Field(description="Its name at the fine-tuning API (`ft:...`) where it has one.")
    object: Literal["model"] = "model"
    created: int
    created_at: int
    owned_by: str
    name: str | None
    method: str | None
    job: str | None
    bytes: int
    metrics: dict[str, float | None]
    lineage: dict[str, Origin]


def model_object(model: TrainedModel | File, *, project: str) -> ModelObject:
    """A model that a job made, or an uploaded base model."""
    told: dict[str, Any] = (
        {
            "name": model.filename,
            "method": None,
            "job": None,
            "metrics": {},
            "lineage": {"upload": Origin(file=model.id, filename=model.filename, sha256=model.sha256)},
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
    return ModelObject(
        id=alias or model.id, created=created, created_at=created, owned_by=project, bytes=model.bytes, **told
    )


def checkpoint_model_object(session: Session, checkpoint: Checkpoint) -> ModelObject:
    """A checkpoint as a model; it may be another project's that permits it."""
    job = session.get_one(Job, checkpoint.job_id)
    owner = session.get_one(Project, job.project_id).name
    return ModelObject(
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
