"""Webhook endpoints and deliveries as the API answers them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.answers.answer import Answer
from core.jobs.models.webhooks import WebhookDelivery, WebhookEndpoint
from core.jobs.status import DeliveryStatus, EndpointStatus, WebhookEvent
from core.jobs.webhooks import hint_of, status_of


class WebhookEndpointObject(Answer):
    """An address that is told of the ends of a project's jobs."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int = Field(description="When its settings or its secret last changed.")
    name: str
    url: str
    event_types: list[WebhookEvent]
    signing_secret_hint: str
    status: EndpointStatus = Field(description="Disabled: it is told nothing, and what it was to be told is given up.")
    failing_since: int | None = Field(description="When the first try failed since the last that did not.")


class NewSecretObject(WebhookEndpointObject):
    """An endpoint with a secret just made: the only time that `signing_secret` is shown."""

    signing_secret: str


class WebhookTestObject(Answer):
    """What a receiver answered to a sample."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: WebhookEvent
    status_code: int = Field(description="The HTTP status of the answer; redirects are not followed.")
    success: Literal[True] = Field(True, description="There was an answer; `status_code` says which.")


class WebhookEventTypesObject(Answer):
    """What webhooks can tell of."""

    object: Literal["list"] = "list"
    data: list[WebhookEvent]


class DeliveryObject(Answer):
    """Something that an endpoint is told, and what came of it."""

    id: str = Field(description="The `webhook-id`: the same in every try.")
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    created_at: int
    webhook_endpoint_id: str
    event_type: WebhookEvent
    event: dict[str, Any] = Field(description="The body that is sent.")
    status: DeliveryStatus
    tries: int = Field(description="How many have ended.")
    next_at: int | None = Field(description="When it is tried again at the earliest; null: it is not.")
    response_status: int | None = Field(description="The HTTP status of the last answer; null if there was none.")
    error: str | None = Field(description="Why the last try failed.")
    delivered_at: int | None


def endpoint_object(endpoint: WebhookEndpoint) -> WebhookEndpointObject:
    """An endpoint, without its secret."""
    return WebhookEndpointObject(**_told(endpoint))


def new_secret_object(endpoint: WebhookEndpoint) -> NewSecretObject:
    """An endpoint with its secret."""
    return NewSecretObject(**_told(endpoint), signing_secret=endpoint.secret)


def _told(endpoint: WebhookEndpoint) -> dict[str, Any]:
    names = ("id", "created_at", "updated_at", "name", "url", "event_types")
    failing_since = None if endpoint.failing_since is None else int(endpoint.failing_since)
    shown = {"signing_secret_hint": hint_of(endpoint), "status": status_of(endpoint), "failing_since": failing_since}
    return {**{name: getattr(endpoint, name) for name in names}, **shown}


def delivery_object(delivery: WebhookDelivery) -> DeliveryObject:
    """A delivery."""
    return DeliveryObject(
        id=delivery.id,
        created_at=delivery.created_at,
        webhook_endpoint_id=delivery.endpoint_id,
        event_type=WebhookEvent(delivery.event_type),
        event=delivery.body,
        status=DeliveryStatus(delivery.status),
        tries=delivery.tries,
        next_at=int(delivery.next_at) if delivery.status == DeliveryStatus.PENDING else None,
        response_status=delivery.response_status,
        error=delivery.error,
        delivered_at=delivery.delivered_at,
    )
