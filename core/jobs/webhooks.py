"""Webhook endpoints: addresses that a project wants told of its jobs' ends, each with the secret that signs it."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.jobs.database import read_clock
from core.jobs.ids import new_id
from core.jobs.models.webhooks import WebhookDelivery, WebhookEndpoint
from core.jobs.pages import Order, page
from core.jobs.status import DeliveryStatus, EndpointStatus, WebhookEvent

PREFIX = "whsec_"
SECRET_BYTES = 30
MOST_ENDPOINTS = 20  # of a project: each is a row at every end of its jobs
OLD_SECRET_SECONDS = 86400
SWITCHED_OFF = "the endpoint was switched off"  # why a delivery is given up


def create_endpoint(
    session: Session, project_id: str, *, name: str, url: str, event_types: Sequence[WebhookEvent]
) -> WebhookEndpoint:
    """A new endpoint with a secret of its own; raises Conflict where the project has as many as it may have."""
    mine = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    if (session.scalar(mine) or 0) >= MOST_ENDPOINTS:
        raise Conflict(f"the project has {MOST_ENDPOINTS} webhook endpoints; delete one first", code="too_many")
    now = int(read_clock(session))
    endpoint = WebhookEndpoint(
        id=new_id("webhook"),
        project_id=project_id,
        name=name,
        url=url,
        event_types=_values(event_types),
        secret=_new_secret(),
        created_at=now,
        updated_at=now,
    )
    session.add(endpoint)
    session.flush()
    return endpoint


def get_endpoint(
    session: Session,
    project_id: str,
    endpoint_id: str,
    *,
    param: str = "webhook_endpoint_id",
    lock: bool | dict[str, bool] | None = None,
) -> WebhookEndpoint:
    """The project's endpoint, locked as told until the transaction ends; raises NotFound."""
    endpoint = session.get(WebhookEndpoint, endpoint_id, with_for_update=lock)
    if endpoint is None or endpoint.project_id != project_id:
        raise NotFound(f"there is no webhook endpoint '{endpoint_id}'", param=param)
    return endpoint


def list_endpoints(
    session: Session, project_id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> list[WebhookEndpoint]:
    """The project's endpoints by (created_at, id)."""
    cursor = get_endpoint(session, project_id, after, param="after") if after else None
    query = select(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    return list(session.scalars(page(query, WebhookEndpoint, cursor=cursor, limit=limit, order=order)))


def change_endpoint(
    session: Session,
    project_id: str,
    endpoint_id: str,
    *,
    name: str | None = None,
    url: str | None = None,
    event_types: Sequence[WebhookEvent] | None = None,
    status: EndpointStatus | None = None,
) -> WebhookEndpoint:
    """Set what is given; what is to be sent still goes to the new address, which is switched on. Raises NotFound."""
    endpoint = get_endpoint(session, project_id, endpoint_id, lock={"key_share": True})
    wanted = {"name": name, "url": url, "event_types": None if event_types is None else _values(event_types)}
    changes = {key: value for key, value in wanted.items() if value not in (None, getattr(endpoint, key))}
    for key, value in changes.items():
        setattr(endpoint, key, value)
    wanted_status = status or (EndpointStatus.ENABLED if "url" in changes else status_of(endpoint))
    if changes or wanted_status is not status_of(endpoint):
        endpoint.updated_at = int(read_clock(session))
    if wanted_status is EndpointStatus.DISABLED:
        switch_off(session, endpoint)
    elif "url" in changes or endpoint.disabled_at is not None:
        endpoint.disabled_at = endpoint.failing_since = None
    return endpoint


def status_of(endpoint: WebhookEndpoint) -> EndpointStatus:
    """Whether it is told anything."""
    return EndpointStatus.ENABLED if endpoint.disabled_at is None else EndpointStatus.DISABLED


def switch_off(session: Session, endpoint: WebhookEndpoint) -> None:
    """Tell a locked endpoint nothing from now on, nor what it was still to be told."""
    if endpoint.disabled_at is not None:
        return
    now = read_clock(session)
    endpoint.disabled_at = int(now)
    waiting = (WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.status == DeliveryStatus.PENDING)
    given_up = {"status": DeliveryStatus.FAILED, "error": SWITCHED_OFF, "next_at": now}
    session.execute(update(WebhookDelivery).where(*waiting).values(**given_up))


def rotate_secret(session: Session, project_id: str, endpoint_id: str, *, should_keep_old: bool) -> WebhookEndpoint:
    """Give an endpoint a new secret; what is sent is signed with the old one too for a day, if that is kept."""
    endpoint = get_endpoint(session, project_id, endpoint_id, lock={"key_share": True})
    now = read_clock(session)
    endpoint.old_secret = endpoint.secret if should_keep_old else None
    endpoint.old_secret_until = now + OLD_SECRET_SECONDS if should_keep_old else None
    endpoint.secret, endpoint.updated_at = _new_secret(), int(now)
    return endpoint


def delete_endpoint(session: Session, project_id: str, endpoint_id: str) -> None:
    """Delete an endpoint with its deliveries, also those that are still to be sent; raises NotFound."""
    endpoint = get_endpoint(session, project_id, endpoint_id, lock=True)  # who writes deliveries to it is waited for
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id))
    session.delete(endpoint)
    session.flush()


def secrets_of(endpoint: WebhookEndpoint, *, now: float) -> list[str]:
    """What it is signed with at this moment: two secrets while one replaces the other."""
    old = endpoint.old_secret if (endpoint.old_secret_until or 0.0) > now else None
    return [endpoint.secret, *([old] if old else [])]


def hint_of(endpoint: WebhookEndpoint) -> str:
    """Enough of the secret to tell it from another, and no more."""
    return f"{PREFIX}...{endpoint.secret[-4:]}"


def _new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _values(event_types: Sequence[WebhookEvent]) -> list[str]:
    """As they are stored: each once, in the order given."""
    return [event.value for event in dict.fromkeys(event_types)]
