"""The states of a job and the ways between them."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
UNFINISHED = [status for status in Status if status not in TERMINAL]

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED, Status.PAUSED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.PAUSED, *TERMINAL}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED, Status.FAILED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset({Status.QUEUED}),  # retry
    Status.CANCELLED: frozenset({Status.QUEUED}),  # retry
}


class Asked(StrEnum):
    """What is asked of the worker that holds a job."""

    CANCEL = "cancel"
    PAUSE = "pause"


class WebhookEvent(StrEnum):
    """What a webhook can tell of: a fine-tuning job's end, as that API names it, and the end of a job of any method."""

    FINE_TUNING_SUCCEEDED = "fine_tuning.job.succeeded"
    FINE_TUNING_FAILED = "fine_tuning.job.failed"
    FINE_TUNING_CANCELLED = "fine_tuning.job.cancelled"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"


class EndpointStatus(StrEnum):
    """Whether a webhook endpoint is told anything."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class DeliveryStatus(StrEnum):
    """Where a webhook's delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class UploadStatus(StrEnum):
    """Where an upload in parts is."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Role(StrEnum):
    """What an API key may do: read; read and write; also make keys."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Whether this role includes `needed`."""
        order = [Role.READ, Role.WRITE, Role.ADMIN]
        return order.index(self) >= order.index(needed)
