"""The tables."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, ForeignKey, Index, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.jobs.status import Role, Status, UploadStatus

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_making = threading.Lock()
_last = 0  # the number of the last id


def new_id(prefix: str) -> str:
    """An id that sorts by the time it was made: milliseconds, then 60 random bits.

    Of one process, each id sorts behind the one before, also within a millisecond: jobs go by age, then by id.
    """
    global _last
    with _making:
        _last = max((int(time.time() * 1000) << 60) + secrets.randbits(60), _last + 1 + secrets.randbits(32))
        number = _last
    return f"{prefix}-{''.join(_ALPHABET[(number >> shift) & 31] for shift in range(105, -5, -5))}"


class Base(DeclarativeBase):
    """All tables; constraints have names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, int: BigInteger}  # noqa: RUF012


def _values(enum: type[Status] | type[Role] | type[UploadStatus]) -> list[str]:
    return [str(member.value) for member in enum]


class Project(Base):
    """Whose files, jobs and models they are. A quota that is null is the server's default for all projects."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    claimed_at: Mapped[float | None]  # when one of its jobs was last claimed: who waited longest is next
    max_running_jobs: Mapped[int | None]
    max_unfinished_jobs: Mapped[int | None]
    max_stored_bytes: Mapped[int | None]
    max_gpu_seconds: Mapped[int | None]


class ApiKey(Base):
    """A key: stored as the SHA-256 of its 256 random bits, shown once."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    role: Mapped[Role] = mapped_column(Enum(Role, values_callable=_values, native_enum=False, length=16, name="role"))
    sha256: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    created_at: Mapped[int]


class File(Base):
    """An uploaded file. Its content lies in storage under its hash; two files may share it."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    profile: Mapped[dict[str, Any] | None]
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    __table_args__ = (
        Index("ix_files_list", "project_id", "created_at", "id"),
        Index("ix_files_purpose", "project_id", "purpose", "created_at", "id"),
        Index("ix_files_expiry", "expires_at"),
    )


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
    status: Mapped[Status] = mapped_column(
        Enum(Status, values_callable=_values, native_enum=False, length=16, name="status")
    )
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


class ModelFetch(Base):
    """A base model that is on its way from a hub, or has come, or could not."""

    __tablename__ = "model_fetches"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]  # at the hub: organization/model
    revision: Mapped[str]
    status: Mapped[str]  # fetching, ready, failed
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    file_id: Mapped[str | None]
    created_at: Mapped[int]
    seen_at: Mapped[float]  # when whoever fetches it last said so: a fetch that is silent for long was lost
    __table_args__ = (
        Index("ix_model_fetches_list", "project_id", "created_at", "id"),
        Index("ix_model_fetches_silent", "status", "seen_at"),
    )


class IdempotencyKey(Base):
    """A client's name for a submission, so that a repeat finds what the first made."""

    __tablename__ = "idempotency_keys"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_sha256: Mapped[str]
    resource_id: Mapped[str]
    created_at: Mapped[int]
    __table_args__ = (UniqueConstraint("project_id", "resource_id"),)


class Submission(Base):
    """What a submission without an Idempotency-Key made, so that a client's repeat of it finds that."""

    __tablename__ = "submissions"
    resource_id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str]
    body_sha256: Mapped[str]
    retry_count: Mapped[int]
    created_at: Mapped[float]
    __table_args__ = (Index("ix_submissions_repeat", "key_id", "body_sha256", "created_at"),)


class Upload(Base):
    """A file that comes in parts, and may be gone on with after a cut."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    mime_type: Mapped[str]
    bytes: Mapped[int]
    status: Mapped[UploadStatus] = mapped_column(
        Enum(UploadStatus, values_callable=_values, native_enum=False, length=16, name="upload_status")
    )
    file_id: Mapped[str | None]
    file_seconds: Mapped[int | None]  # how long the file is kept once it is whole; null: until it is deleted
    created_at: Mapped[int]
    expires_at: Mapped[int]
    __table_args__ = (
        Index("ix_uploads_list", "project_id", "created_at", "id"),
        Index("ix_uploads_expiry", "status", "expires_at"),
    )


class UploadPart(Base):
    """A part of an upload that has arrived whole."""

    __tablename__ = "upload_parts"
    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    bytes: Mapped[int]
    sha256: Mapped[str]
    md5: Mapped[str]
    created_at: Mapped[int]


class WorkerSlot(Base):
    """A worker's slot, as it last told of itself: who could take what waits."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)  # the `owner` of the jobs that it claims
    host: Mapped[str]
    has_gpu: Mapped[bool]
    started_at: Mapped[float]
    seen_at: Mapped[float]
    is_draining: Mapped[bool] = mapped_column(default=False)
    drain_requested: Mapped[bool] = mapped_column(default=False)


class WebhookEndpoint(Base):
    """An address that is told of what happens to jobs."""

    __tablename__ = "webhook_endpoints"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[Any]]
    secret: Mapped[str]  # whsec_<base64>: signs what is sent, so it cannot be stored as a hash
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[float | None]
    created_at: Mapped[int]
    updated_at: Mapped[int]
    __table_args__ = (Index("ix_webhook_endpoints_list", "project_id", "created_at", "id"),)


class WebhookDelivery(Base):
    """Something that an endpoint is to be told: written with what it tells of, tried until it is taken."""

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)  # the webhook-id, the same in every try
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_type: Mapped[str]
    body: Mapped[dict[str, Any]]
    status: Mapped[str]  # pending, delivered, failed
    tries: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float]  # when it is to be tried again; while it is being tried: when that try counts as lost
    response_status: Mapped[int | None]
    error: Mapped[str | None]
    created_at: Mapped[int]
    delivered_at: Mapped[int | None]
    __table_args__ = (
        Index("ix_webhook_deliveries_due", "status", "next_at"),
        Index("ix_webhook_deliveries_list", "endpoint_id", "created_at", "id"),
    )
