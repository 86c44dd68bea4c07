"""Checkpoints, as the API answers them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.answers.answer import Answer
from api.answers.numbers import finite
from core.jobs.models.results import Checkpoint


class CheckpointObject(Answer):
    """A checkpoint."""

    id: str
    object: Literal["job.checkpoint"] = "job.checkpoint"
    created_at: int
    job: str
    step: int
    is_epoch: bool = Field(description="Whether an epoch of fine-tuning ended there: it can be used as a model.")
    bytes: int
    sha256: str
    metrics: dict[str, float | None]


def checkpoint_object(row: Checkpoint) -> CheckpointObject:
    """A checkpoint."""
    return CheckpointObject(
        id=row.id,
        created_at=row.created_at,
        job=row.job_id,
        step=row.step,
        is_epoch=row.is_epoch,
        bytes=row.bytes,
        sha256=row.sha256,
        metrics=finite(row.metrics),
    )
