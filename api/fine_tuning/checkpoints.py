"""What the fine-tuning API answers of checkpoints that are models, and of who may use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from api.answers.answer import Answer
from api.fine_tuning.events import metrics_in_its_words
from core.jobs.models.jobs import Job
from core.jobs.models.results import Checkpoint, CheckpointPermission
from core.jobs.names import checkpoint_name


class CheckpointMetrics(Answer):
    """What was known at a checkpoint's step; null: it was not measured."""

    step: int
    train_loss: float | None
    train_mean_token_accuracy: float | None
    valid_loss: float | None = Field(description="Of the whole validation set, as `full_valid_loss` is.")
    valid_mean_token_accuracy: float | None
    full_valid_loss: float | None
    full_valid_mean_token_accuracy: float | None


class FineTuningCheckpointObject(Answer):
    """A checkpoint that can be used as a model."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str = Field(description="What it is called as a model.")
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics


class PermissionObject(Answer):
    """That another project may use a checkpoint as a model."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str


def checkpoint_object(row: Checkpoint, job: Job, *, project: str) -> FineTuningCheckpointObject:
    """A checkpoint of a job of the project of that name."""
    return FineTuningCheckpointObject(
        id=row.id,
        created_at=row.created_at,
        fine_tuned_model_checkpoint=checkpoint_name(job, project, row.step),
        fine_tuning_job_id=job.id,
        step_number=row.step,
        metrics=_metrics(row.step, row.metrics),
    )


def _metrics(step: int, known: Mapping[str, Any]) -> CheckpointMetrics:
    told = metrics_in_its_words(known)
    words = {name: told.get(name) for name in CheckpointMetrics.model_fields if not name.startswith("full_")}
    whole = {f"full_{name}": told.get(name) for name in ("valid_loss", "valid_mean_token_accuracy")}
    return CheckpointMetrics(**{**words, **whole, "step": step})


def permission_object(row: CheckpointPermission) -> PermissionObject:
    """A permission."""
    return PermissionObject(id=row.id, created_at=row.created_at, project_id=row.project_id)
