"""Webhooks: addresses that are told when jobs end. docs/webhooks.md says how to receive them."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.concurrency import run_in_threadpool

from api.answers.answer import Deleted
from api.answers.lists import ListOf, page_of
from api.dependencies import PageDep, Reader, ServerDep, Writer
from api.webhooks.answers import (
    DeliveryObject,
    NewSecretObject,
    WebhookEndpointObject,
    WebhookEventTypesObject,
    WebhookTestObject,
    delivery_object,
    endpoint_object,
    new_secret_object,
)
from api.webhooks.reaching import Unreached
from core.errors import InvalidRequest
from core.jobs import deliveries, webhooks
from core.jobs.database import read_clock
from core.jobs.ending import event_body
from core.jobs.ids import new_id
from core.jobs.models.webhooks import WebhookEndpoint
from core.jobs.status import EndpointStatus, WebhookEvent
from core.spec import Frozen

router = APIRouter(tags=["webhooks"])

Name = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Events = Annotated[list[WebhookEvent], Field(min_length=1, max_length=100)]
SAMPLE_JOB = "job-sample"


class NewWebhookEndpoint(Frozen):
    """Whom to tell, and of what."""

    name: Name = Field(description="Whose it is, or what for.")
    url: Url = Field(
        description="Where events are posted: https://..., or http://...; no address of a private network."
    )
    event_types: Events = Field(description="What to tell of.")


class WebhookEndpointChanges(Frozen):
    """What to change of an endpoint; what is not named stays."""

    name: Name | None = Field(None, description="Whose it is, or what for.")
    url: Url | None = Field(None, description="Where events are posted from now on, also those that still wait.")
    event_types: Events | None = Field(None, description="All that is to be told of.")
    status: EndpointStatus | None = Field(None, description="Whether it is told anything; a new address is.")


NO_CHANGES = WebhookEndpointChanges()


class Rotation(Frozen):
    """How a secret is replaced."""

    keep_old_secret_active_for_24_hours: bool = Field(
        False, description="Whether events are signed with the old secret too for a day."
    )


AT_ONCE = Rotation()


class Sample(Frozen):
    """What to send as a sample."""

    event_type: WebhookEvent | None = Field(None, description="Null: the first that the endpoint is told of.")


ANY_SAMPLE = Sample()


@router.get("/v1/webhook_event_types")
def list_webhook_event_types(caller: Reader) -> WebhookEventTypesObject:
    """What webhooks can tell of. A fine-tuning job's end is told under both its names, to those who want both."""
    return WebhookEventTypesObject(data=list(WebhookEvent))


@router.post("/v1/webhook_endpoints", status_code=201)
async def create_webhook_endpoint(body: NewWebhookEndpoint, caller: Writer, server: ServerDep) -> NewSecretObject:
    """Have an address told of jobs' ends. The secret that signs what it is told is shown in this answer alone."""
    with server.sender.place(caller.project_id):
        await server.sender.reach.check(body.url)

    def create() -> NewSecretObject:
        with server.database.write() as session:
            made = webhooks.create_endpoint(
                session, caller.project_id, name=body.name, url=body.url, event_types=body.event_types
            )
            return new_secret_object(made)

    return await run_in_threadpool(create)


@router.get("/v1/webhook_endpoints")
def list_webhook_endpoints(caller: Reader, server: ServerDep, page: PageDep) -> ListOf[WebhookEndpointObject]:
    """The project's endpoints."""
    with server.database.read() as session:
        found = webhooks.list_endpoints(session, caller.project_id, **page.query)
    return page_of([endpoint_object(endpoint) for endpoint in found], page)


@router.get("/v1/webhook_endpoints/{webhook_endpoint_id}")
def get_webhook_endpoint(webhook_endpoint_id: str, caller: Reader, server: ServerDep) -> WebhookEndpointObject:
    """One endpoint."""
    with server.database.read() as session:
        return endpoint_object(webhooks.get_endpoint(session, caller.project_id, webhook_endpoint_id))


@router.post("/v1/webhook_endpoints/{webhook_endpoint_id}")
async def change_webhook_endpoint(
    webhook_endpoint_id: str,
    caller: Writer,
    server: ServerDep,
    body: WebhookEndpointChanges = NO_CHANGES,
) -> WebhookEndpointObject:
    """Change an endpoint's name, address, what it is told of, or whether it is told anything."""
    if body.url is not None:
        with server.sender.place(caller.project_id):
            await server.sender.reach.check(body.url)

    def change() -> WebhookEndpointObject:
        with server.database.write() as session:
            changed = webhooks.change_endpoint(
                session,
                caller.project_id,
                webhook_endpoint_id,
                name=body.name,
                url=body.url,
                event_types=body.event_types,
                status=body.status,
            )
            return endpoint_object(changed)

    return await run_in_threadpool(change)


@router.delete("/v1/webhook_endpoints/{webhook_endpoint_id}")
def delete_webhook_endpoint(webhook_endpoint_id: str, caller: Writer, server: ServerDep) -> Deleted:
    """Tell an address no more, not even of what it was still to be told; its deliveries are deleted, too."""
    with server.database.write() as session:
        webhooks.delete_endpoint(session, caller.project_id, webhook_endpoint_id)
    return Deleted(id=webhook_endpoint_id, object="webhook_endpoint.deleted")


@router.post("/v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret")
def rotate_webhook_secret(
    webhook_endpoint_id: str,
    caller: Writer,
    server: ServerDep,
    body: Rotation = AT_ONCE,
) -> NewSecretObject:
    """Replace an endpoint's secret, at once, or with a day in which both are good."""
    keep = body.keep_old_secret_active_for_24_hours
    with server.database.write() as session:
        return new_secret_object(
            webhooks.rotate_secret(session, caller.project_id, webhook_endpoint_id, should_keep_old=keep)
        )


@router.post("/v1/webhook_endpoints/{webhook_endpoint_id}/test")
async def send_sample(
    webhook_endpoint_id: str,
    caller: Writer,
    server: ServerDep,
    body: Sample = ANY_SAMPLE,
) -> WebhookTestObject:
    """Send an endpoint a signed sample, once and now, and say what it answered; 400 if it does not answer."""

    def find() -> tuple[WebhookEndpoint, list[str]]:
        with server.database.read() as session:
            found = webhooks.get_endpoint(session, caller.project_id, webhook_endpoint_id)
            return found, webhooks.secrets_of(found, now=read_clock(session))

    endpoint, secrets = await run_in_threadpool(find)
    event_type = body.event_type or WebhookEvent(endpoint.event_types[0])
    event = event_body(event_type, SAMPLE_JOB, created_at=int(time.time()))
    try:
        with server.sender.place(caller.project_id):
            status = await server.sender.post(endpoint.url, new_id("wh"), event, secrets=secrets)
    except Unreached as why:
        raise InvalidRequest(f"the endpoint did not answer: {why}", code="endpoint_unreachable") from None
    return WebhookTestObject(webhook_endpoint_id=endpoint.id, event_type=event_type, status_code=status)


@router.get("/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries")
def list_webhook_deliveries(
    webhook_endpoint_id: str, caller: Reader, server: ServerDep, page: PageDep
) -> ListOf[DeliveryObject]:
    """What an endpoint was told, or is still to be told, and what came of each."""
    with server.database.read() as session:
        found = deliveries.list_deliveries(session, caller.project_id, webhook_endpoint_id, **page.query)
    return page_of([delivery_object(delivery) for delivery in found], page)


@router.post("/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries/{delivery_id}/retry")
def retry_webhook_delivery(
    webhook_endpoint_id: str, delivery_id: str, caller: Writer, server: ServerDep
) -> DeliveryObject:
    """Send a delivery again, now, whatever became of it, under the same `webhook-id`, with all its tries before it."""
    with server.database.write() as session:
        delivery = deliveries.retry_delivery(session, caller.project_id, webhook_endpoint_id, delivery_id)
        shown = delivery_object(delivery)
    server.sender.nudge()
    return shown
