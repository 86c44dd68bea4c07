"""Jobs, and what happens to them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from core.jobs.models.base import Base, by_value
from core.jobs.status import Status


class Pipeline(Base):
    """Jobs that were posted together and feed each other."""

    __tablename__ = "pipelines"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str | None]
    created_at: Mapped[int]
    __table_args__ = (Index("ix_pipelines_list", "project_id", "created_at", "id"),)


_IN_TURN = (text("priority DESC"), "created_at", "id")  # whose turn it is within a project


class Job(Base):
    """A job: the truth about its state. Whoever writes a running job must hold its fence."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    method: Mapped[str]
    name: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    tags: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    device: Mapped[str]
    priority: Mapped[int]
    status: Mapped[Status] = mapped_column(by_value(Status, name="status"))
    created_at: Mapped[int]
    claimable_at: Mapped[float]  # in the future after an attempt that failed: it is not tried again at once
    started_at: Mapped[int | None]
    finished_at: Mapped[int | None]
    fence: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    owner: Mapped[str | None]
    lease_expires_at: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False)
    lacks_weights: Mapped[bool] = mapped_column(default=False)  # a job that it needs has not succeeded
    progress: Mapped[dict[str, Any] | None]
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[dict[str, Any] | None]
    pipeline_id: Mapped[str | None] = mapped_column(ForeignKey("pipelines.id"), index=True)
    pipeline_step: Mapped[str | None]
    request: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # as /v1/fine_tuning/jobs had it
    result_file_id: Mapped[str | None]  # the file of its metrics, step by step, if it was asked for there
    __table_args__ = (
        Index("ix_jobs_list", "project_id", "created_at", "id"),
        Index("ix_jobs_status", "project_id", "status", "created_at", "id"),
        Index("ix_jobs_method", "project_id", "method", "status", "created_at", "id"),
        Index("ix_jobs_claim", "project_id", "status", "lacks_weights", "device", *_IN_TURN),
        Index("ix_jobs_lease", "status", "lease_expires_at"),
    )


class Dependency(Base):
    """Job `job_id` takes the weights of `needs_id` as the model in its spec's `field`."""

    __tablename__ = "dependencies"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    needs_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)


class Attempt(Base):
    """One claim of a job, by one worker, under one fence."""

    __tablename__ = "attempts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    owner: Mapped[str]
    device: Mapped[str | None]  # cpu or cuda: what it was trained on
    started_at: Mapped[int]
    ended_at: Mapped[int | None]
    outcome: Mapped[str | None]  # succeeded, failed, cancelled, released, paused, lost
    __table_args__ = (Index("ix_attempts_device", "device", "ended_at"),)


class SpentGpu(Base):
    """What an attempt of a job that was deleted spent on a GPU: that is not free again by deleting the job."""

    __tablename__ = "spent_gpu"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    started_at: Mapped[int]
    ended_at: Mapped[int]


class Event(Base):
    """One event of a job. `<fence>-<seq>` is its id everywhere: here, in Redis, and in the SSE stream."""

    __tablename__ = "events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[float]
    type: Mapped[str]  # status, message, metrics, checkpoint, sample, log
    level: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)
    __table_args__ = (Index("ix_events_type", "job_id", "type", "fence", "seq"),)
