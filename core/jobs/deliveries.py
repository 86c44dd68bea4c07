"""Deliveries: what webhook endpoints are still to be told, whose turn it is, and what came of each try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.jobs.database import change_rows, read_clock
from core.jobs.models.webhooks import WebhookDelivery, WebhookEndpoint
from core.jobs.pages import Order, page
from core.jobs.status import DeliveryStatus
from core.jobs.webhooks import SWITCHED_OFF, get_endpoint, secrets_of, switch_off

PAUSES = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 86_400.0)  # seconds before each try
FAILING_DAYS = 5.0  # without a try that was taken: an endpoint of which another delivery is given up is switched off
DROPPED_AT_ONCE = 5000


@dataclass(frozen=True)
class Try:
    """A delivery that this process is to send now, and has until `claimed_until`, by the database's clock."""

    delivery_id: str
    endpoint_id: str
    project_id: str
    url: str
    body: Mapping[str, Any]
    claimed_until: float
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What came of a try: the HTTP status, if there was an answer, and why it failed, if it did."""

    response_status: int | None
    error: str | None


def is_any_due(session: Session) -> bool:
    """Whether a delivery waits to be sent: asked often, and answered from an index."""
    return bool(session.scalar(select(exists().where(*_due(read_clock(session))))))


def claim_due(
    session: Session, *, seconds: float, limit: int, under_way: Mapping[str, int], most_of_project: int
) -> list[Try]:
    """Take what is due for so many seconds: nobody else sends it until then, and whoever comes then if we do not.

    `under_way`: how much of each project this process sends already; it takes at most `most_of_project` of each.
    """
    now = read_clock(session)
    full = [project for project, count in under_way.items() if count >= most_of_project]
    query = select(WebhookDelivery, WebhookEndpoint).join(WebhookEndpoint).where(*_due(now))
    if full:
        query = query.where(WebhookEndpoint.project_id.not_in(full))
    query = query.order_by(WebhookDelivery.next_at).limit(limit)
    counts, taken = Counter(under_way), []
    for delivery, endpoint in session.execute(query.with_for_update(of=WebhookDelivery, skip_locked=True)).all():
        if endpoint.disabled_at is not None:  # it was switched off just as this was written
            delivery.status, delivery.error, delivery.next_at = DeliveryStatus.FAILED, SWITCHED_OFF, now
            continue
        counts[endpoint.project_id] += 1
        if counts[endpoint.project_id] <= most_of_project:
            taken.append(_try(delivery, endpoint, now=now, until=now + seconds))
    mine = WebhookDelivery.id.in_([one.delivery_id for one in taken])
    session.execute(update(WebhookDelivery).where(mine).values(next_at=now + seconds))
    return taken


def note_outcome(session: Session, one: Try, outcome: Outcome, *, pause_factor: float = 1.0) -> bool:
    """Write down what came of a try, and when the next is due; nothing, if the delivery is someone else's by now.

    Answers whether the endpoint was switched off: it was given up again, and has taken nothing for FAILING_DAYS.
    """
    endpoint = session.get(WebhookEndpoint, one.endpoint_id, with_for_update={"key_share": True})
    delivery = session.get(WebhookDelivery, one.delivery_id, with_for_update=True)
    if endpoint is None or delivery is None:
        return False
    if (delivery.status, delivery.next_at) != (DeliveryStatus.PENDING, one.claimed_until):
        return False
    now = read_clock(session)
    delivery.tries += 1
    delivery.response_status, delivery.error = outcome.response_status, outcome.error
    delivery.next_at = now
    if outcome.error is None:
        delivery.status, delivery.delivered_at = DeliveryStatus.DELIVERED, int(now)
        endpoint.failing_since = None
        return False
    endpoint.failing_since = endpoint.failing_since or now
    if delivery.tries < len(PAUSES):
        delivery.next_at += PAUSES[delivery.tries] * pause_factor
        return False
    delivery.status = DeliveryStatus.FAILED
    has_failed_long = endpoint.failing_since <= now - FAILING_DAYS * 86400
    if has_failed_long:
        switch_off(session, endpoint)
    return has_failed_long


def retry_delivery(session: Session, project_id: str, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
    """Have a delivery sent again at once, whatever became of it, with all its tries before it.

    Raises NotFound, and Conflict where the endpoint is switched off.
    """
    if get_endpoint(session, project_id, endpoint_id).disabled_at is not None:
        raise Conflict(
            'the endpoint is switched off: switch it on first, with {"status": "enabled"}', code="endpoint_disabled"
        )
    delivery = get_delivery(session, project_id, endpoint_id, delivery_id, should_lock=True)
    delivery.status, delivery.tries, delivery.next_at = DeliveryStatus.PENDING, 0, read_clock(session)
    delivery.response_status, delivery.error, delivery.delivered_at = None, None, None
    return delivery


def get_delivery(
    session: Session,
    project_id: str,
    endpoint_id: str,
    delivery_id: str,
    *,
    param: str = "delivery_id",
    should_lock: bool = False,
) -> WebhookDelivery:
    """The delivery to the project's endpoint; raises NotFound."""
    get_endpoint(session, project_id, endpoint_id)
    delivery = session.get(WebhookDelivery, delivery_id, with_for_update=True if should_lock else None)
    if delivery is None or delivery.endpoint_id != endpoint_id:
        raise NotFound(f"the webhook endpoint has no delivery '{delivery_id}' (any more)", param=param)
    return delivery


def list_deliveries(
    session: Session,
    project_id: str,
    endpoint_id: str,
    *,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> list[WebhookDelivery]:
    """The deliveries to the project's endpoint by (created_at, id); raises NotFound."""
    get_endpoint(session, project_id, endpoint_id)
    cursor = get_delivery(session, project_id, endpoint_id, after, param="after") if after else None
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    return list(session.scalars(page(query, WebhookDelivery, cursor=cursor, limit=limit, order=order)))


def drop_deliveries(session: Session, *, days: float, at_once: int = DROPPED_AT_ONCE) -> int:
    """Forget what was delivered, or given up, so many days ago; answers how many, at most `at_once`."""
    ended = WebhookDelivery.status.in_([DeliveryStatus.DELIVERED, DeliveryStatus.FAILED])
    old = select(WebhookDelivery.id).where(ended, WebhookDelivery.next_at < read_clock(session) - days * 86400)
    return change_rows(session, delete(WebhookDelivery).where(WebhookDelivery.id.in_(old.limit(at_once))))


def _try(delivery: WebhookDelivery, endpoint: WebhookEndpoint, *, now: float, until: float) -> Try:
    secrets = tuple(secrets_of(endpoint, now=now))
    return Try(delivery.id, endpoint.id, endpoint.project_id, endpoint.url, delivery.body, until, secrets)


def _due(now: float) -> tuple[Any, ...]:
    """`now`: a value, since PostgreSQL looks nothing up in an index by a clock that goes on."""
    return WebhookDelivery.status == DeliveryStatus.PENDING, WebhookDelivery.next_at <= now
