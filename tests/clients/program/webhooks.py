"""`client.webhooks`: endpoints, their secrets, and bodies that were really delivered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import openai
from asking import Place, answer, everything, saw

PATIENCE = 180.0
ENDS = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


class Delivery(NamedTuple):
    """What an endpoint was sent."""

    headers: Mapping[str, str]
    body: bytes


class Receiver(contextlib.AbstractContextManager["Receiver"]):
    """An endpoint on this machine, as a user's own service has one."""

    def __init__(self) -> None:
        self._deliveries: queue.Queue[Delivery] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        deliveries = self._deliveries

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                deliveries.put(Delivery(dict(self.headers), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        return Handler

    async def next(self) -> Delivery:
        """The next delivery."""
        return await asyncio.to_thread(self._deliveries.get, timeout=PATIENCE)

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


async def try_endpoints(place: Place, receiver: Receiver) -> str:
    """Make an endpoint for the ends of jobs; answers the secret that its deliveries are signed with."""
    if not hasattr(place.client.webhooks, "create"):  # 1.x has no calls for endpoints: they are made elsewhere
        body = {"name": place.name, "url": receiver.url, "event_types": ENDS}
        made = await answer(place.client.post("/webhook_endpoints", cast_to=object, body=body))
        saw("post /webhook_endpoints", id=made["id"])
        return str(made["signing_secret"])
    return await _endpoints_of_3(place, receiver)


async def _endpoints_of_3(place: Place, receiver: Receiver) -> str:
    webhooks = place.client.webhooks
    types = await answer(webhooks.event_types.list())
    assert set(ENDS) <= set(types.data)
    saw("webhooks.event_types.list", data=types.data)
    made = await answer(webhooks.create(name="first", url=receiver.url, event_types=ENDS[:1]))
    saw("webhooks.create", id=made.id, hint=made.signing_secret_hint)
    same = await answer(webhooks.retrieve(made.id))
    assert (same.id, same.url, same.event_types) == (made.id, receiver.url, ENDS[:1])
    saw("webhooks.retrieve", id=same.id)
    changed = await answer(webhooks.update(made.id, name=place.name, event_types=ENDS))
    assert (changed.name, changed.event_types) == (place.name, ENDS)
    saw("webhooks.update", name=changed.name)
    other = await answer(webhooks.create(name="second", url=receiver.url, event_types=ENDS))
    assert [one.id for one in await everything(webhooks.list(limit=1))] == [other.id, made.id]
    saw("webhooks.list", ids=[other.id, made.id])
    gone = await answer(webhooks.delete(other.id))
    assert (gone.id, gone.deleted) == (other.id, True)
    saw("webhooks.delete", id=gone.id)

    rotated = await answer(webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True))
    assert rotated.signing_secret != made.signing_secret
    told = await answer(webhooks.test(made.id, event_type=ENDS[0]))
    assert (told.success, told.status_code) == (True, 204)
    sample = await receiver.next()
    for secret in (made.signing_secret, rotated.signing_secret):  # both are good while the old one goes out of use
        await answer(webhooks.verify_signature(sample.body, sample.headers, secret=secret))
    assert (await answer(webhooks.unwrap(sample.body, sample.headers, secret=secret))).type == ENDS[0]
    saw("webhooks.rotate_secret", hint=rotated.signing_secret_hint)
    saw("webhooks.test", status_code=told.status_code)
    return str(rotated.signing_secret)


async def delivered(place: Place, receiver: Receiver, job_id: str, secret: str) -> Any:
    """The job, once its end was delivered; what was sent is signed, and cannot be changed."""
    webhooks = place.client.webhooks
    while True:
        delivery = await receiver.next()
        event = await answer(webhooks.unwrap(delivery.body, delivery.headers, secret=secret))
        if event.data.id == job_id:
            break
    assert event.type == "fine_tuning.job.succeeded", event
    saw("webhooks.unwrap", type=event.type, job=event.data.id)
    forged = json.dumps({**json.loads(delivery.body), "id": "evt_forged"})
    try:
        await answer(webhooks.verify_signature(forged, delivery.headers, secret=secret))
    except openai.InvalidWebhookSignatureError:
        saw("webhooks.verify_signature", forged="refused")
    else:
        raise AssertionError("a forged body was taken")
    return await answer(place.client.fine_tuning.jobs.retrieve(job_id))
