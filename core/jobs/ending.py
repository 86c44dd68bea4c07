"""How a job's end is written, wherever it ends: with what webhooks are to tell of it, in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs.database import read_clock
from core.jobs.ids import new_id
from core.jobs.models.jobs import Job
from core.jobs.models.webhooks import WebhookDelivery, WebhookEndpoint
from core.jobs.status import DeliveryStatus, Status, WebhookEvent


def end_job(session: Session, job: Job, status: Status) -> None:
    """Give a locked job its last status, and write a delivery for each endpoint that wants to be told."""
    now = read_clock(session)
    job.status, job.finished_at = status, int(now)
    # Locked as a foreign key locks it: who deletes an endpoint waits for this, instead of making the job's end fail.
    wanted = select(WebhookEndpoint.id, WebhookEndpoint.event_types)
    mine = wanted.where(WebhookEndpoint.project_id == job.project_id, WebhookEndpoint.disabled_at.is_(None))
    endpoints = session.execute(mine.with_for_update(read=True, key_share=True)).all()
    for event in _events_of(job):
        body = event_body(event, job.id, created_at=int(now))
        for endpoint_id, types in endpoints:
            if event in types:
                session.add(_delivery(endpoint_id, body, now=now))
                session.info["has_deliveries"] = True


def event_body(event: WebhookEvent, job_id: str, *, created_at: int) -> dict[str, object]:
    """What a webhook says: which event, of which job."""
    return {
        "object": "event",
        "id": new_id("evt"),
        "type": event.value,
        "created_at": created_at,
        "data": {"id": job_id},
    }


def has_deliveries(session: Session) -> bool:
    """Whether a job ended in this session of which an endpoint is to be told: worth a look once it is committed."""
    return bool(session.info.get("has_deliveries"))


def _events_of(job: Job) -> Iterator[WebhookEvent]:
    if job.method == "fine_tuning":
        yield WebhookEvent(f"fine_tuning.job.{job.status.value}")
    yield WebhookEvent(f"job.{job.status.value}")


def _delivery(endpoint_id: str, body: dict[str, object], *, now: float) -> WebhookDelivery:
    return WebhookDelivery(
        id=new_id("wh"),
        endpoint_id=endpoint_id,
        event_type=body["type"],
        body=body,
        status=DeliveryStatus.PENDING,
        next_at=now,
        created_at=int(now),
    )
