"""Webhooks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.jobs.models.base import Base


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
    failing_since: Mapped[float | None]  # the first try that failed since the last that did not
    disabled_at: Mapped[int | None]  # when it was switched off: it is told nothing
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
