"""What jobs make."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.jobs.models.base import Base


class Checkpoint(Base):
    """A checkpoint in storage under `key`."""

    __tablename__ = "checkpoints"
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    fence: Mapped[int]
    step: Mapped[int]
    key: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[int]
    is_epoch: Mapped[bool] = mapped_column(default=False)  # an epoch ended there: it can be used as a model


class CheckpointPermission(Base):
    """Another project may use a checkpoint as a model."""

    __tablename__ = "checkpoint_permissions"
    id: Mapped[str] = mapped_column(primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[int]
    __table_args__ = (
        UniqueConstraint("checkpoint_id", "project_id"),
        Index("ix_checkpoint_permissions_project_id", "project_id"),
    )


class Artifact(Base):
    """A published file of a job, in storage under `key`."""

    __tablename__ = "artifacts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    media_type: Mapped[str]


class TrainedModel(Base):
    """A model that a job made."""

    __tablename__ = "models"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    name: Mapped[str | None]
    alias: Mapped[str | None] = mapped_column(unique=True)  # ft:<base>:<project>:<suffix>:<job>, if it has one
    method: Mapped[str]
    bytes: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    lineage: Mapped[dict[str, Any]]
    created_at: Mapped[int]
    __table_args__ = (Index("ix_models_list", "project_id", "created_at", "id"),)
