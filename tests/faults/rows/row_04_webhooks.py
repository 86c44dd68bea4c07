"""Row 4, with what webhooks were to tell: API processes die before they send it, and while they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.jobs.deliveries import list_deliveries
from core.jobs.models.webhooks import WebhookDelivery, WebhookEndpoint
from core.jobs.status import DeliveryStatus
from tests.api.receiver import Receiver
from tests.faults.invariants import LOST, TWICE
from tests.faults.parts import until
from tests.faults.stack import Stack
from tests.faults.trials import Trial, fault


@fault(row=4, name="API killed between a job's end and its webhook, and again while that is sent", alone=True)
def kill_before_and_while_sending(trial: Trial) -> None:
    """The job ends while nobody can tell of it; then whoever tells of it does not live to hear the answer."""
    apis, job = trial.stack.apis, trial.training_job()
    with Receiver().serving() as receiver, telling(trial.stack, receiver.url("held")) as endpoint:
        job.until_training()
        apis.kill()
        job.until_ended()
        trial.require(not receiver.requests, "the job's end was told before it came", kind=TWICE)
        apis.start()
        until(lambda: receiver.requests, what="for the webhook")
        apis.kill()
        apis.start()
        until(lambda: told(trial.stack, endpoint)[0].status == DeliveryStatus.DELIVERED, what="for its second try")
        ids = [received.headers["webhook-id"] for received in receiver.requests]
        trial.require(ids == [told(trial.stack, endpoint)[0].id] * 2, f"tries: {ids}", kind=TWICE)
        trial.require(len(told(trial.stack, endpoint)) == 1, "an end is one event", kind=LOST)


@contextmanager
def telling(stack: Stack, url: str) -> Iterator[str]:
    """An endpoint that is told of every job that succeeds, until the block ends; its id."""
    body = {"name": "faults", "url": url, "event_types": ["job.succeeded"]}
    endpoint: str = stack.request("POST", "/v1/webhook_endpoints", json=body).raise_for_status().json()["id"]
    yield endpoint
    stack.request("DELETE", f"/v1/webhook_endpoints/{endpoint}").raise_for_status()


def told(stack: Stack, endpoint_id: str) -> list[WebhookDelivery]:
    """What the endpoint was told, or is still to be."""
    found: list[WebhookDelivery] = stack.read(
        lambda session: list_deliveries(session, session.get_one(WebhookEndpoint, endpoint_id).project_id, endpoint_id)
    )
    return found
