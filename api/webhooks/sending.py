"""Sends webhooks, in every API process: takes what is due, asks its receiver to take it, and notes what came of that.

The rows are the truth: a process that dies while it sends leaves a claim, and when that ends, whoever looks sends
again, under the same webhook-id. https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.webhooks.reaching import Reach, Unreached
from core.errors import InvalidRequest, TooManyRequests
from core.jobs import deliveries
from core.jobs.database import Database
from core.jobs.deliveries import Outcome, Try
from core.jobs.webhooks import PREFIX
from core.settings import Settings

AT_ONCE = 32
OF_PROJECT_AT_ONCE = 4  # so that one whose receivers are slow holds up nobody else
AWAY_SECONDS = 2.0  # a database that cannot be reached is left alone for so long
CLAIMED_FOR = 3.0  # times as long as a receiver may take: time to note the outcome, too

log = logging.getLogger("weightworks.webhooks")


class Sender:
    """The requests that this process makes to receivers."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.reach = Reach(allow_private=settings.webhook_private_addresses, seconds=settings.webhook_seconds)
        self._database = database
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._nudged = asyncio.Event()
        self._under_way: Counter[str] = Counter()  # deliveries, by project
        self._asked_for: Counter[str] = Counter()  # what requests wait for, by project
        self._tasks: set[asyncio.Task[None]] = set()

    def nudge(self) -> None:
        """Have it look at once; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: another process will look
            self._loop.call_soon_threadsafe(self._nudged.set)

    @contextmanager
    def place(self, project_id: str) -> Iterator[None]:
        """A place for what a project asks to have sent or looked up now; raises TooManyRequests where all are taken."""
        if self._asked_for[project_id] >= OF_PROJECT_AT_ONCE:
            raise TooManyRequests("you ask for much of this at once; ask again in a moment", retry_after=1.0)
        self._asked_for[project_id] += 1
        try:
            yield
        finally:
            _give_back(self._asked_for, project_id)

    async def run(self) -> None:
        """Until cancelled: look when nudged, and now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.webhook_poll_seconds):
                    await self._nudged.wait()
            self._nudged.clear()
            try:
                await self._start_due()
            except SQLAlchemyError as error:
                log.warning("webhooks: the database cannot be reached: %s", str(error).partition("\n")[0])
                await asyncio.sleep(AWAY_SECONDS)
            except Exception:  # whatever it is, the next look must come
                log.exception("webhooks could not be sent")

    async def close(self) -> None:
        """Leave off; what is under way is sent again by whoever looks when its claim has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.reach.close()

    async def _start_due(self) -> None:
        while (free := AT_ONCE - len(self._tasks)) > 0:
            tries = await run_in_threadpool(self._claim, free, dict(self._under_way))
            if not tries:
                return
            for one in tries:
                self._under_way[one.project_id] += 1
                task = asyncio.create_task(self._try(one))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _claim(self, limit: int, under_way: Mapping[str, int]) -> list[Try]:
        with self._database.read() as session:
            if not deliveries.is_any_due(session):
                return []
        seconds = CLAIMED_FOR * self._settings.webhook_seconds
        with self._database.write() as session:
            return deliveries.claim_due(
                session, seconds=seconds, limit=limit, under_way=under_way, most_of_project=OF_PROJECT_AT_ONCE
            )

    async def _try(self, one: Try) -> None:
        try:
            outcome = await self._send(one)
            await run_in_threadpool(self._note, one, outcome)
        except SQLAlchemyError as error:
            log.warning("what came of webhook %s is not noted: %s", one.delivery_id, str(error).partition("\n")[0])
        except Exception:
            log.exception("webhook %s could not be sent", one.delivery_id)
        finally:
            _give_back(self._under_way, one.project_id)
            self._nudged.set()  # others of this project may wait for the place

    async def _send(self, one: Try) -> Outcome:
        try:
            status = await self.post(one.url, one.delivery_id, one.body, secrets=one.secrets)
        except (Unreached, InvalidRequest) as why:
            return Outcome(None, str(why))
        if 200 <= status < 300:
            return Outcome(status, None)
        return Outcome(
            status, f"the answer was {status}{'; redirects are not followed' if 300 <= status < 400 else ''}"
        )

    async def post(self, url: str, message_id: str, event: Mapping[str, Any], *, secrets: Sequence[str]) -> int:
        """Sign an event and send it; answers the HTTP status. Raises Unreached."""
        body = json.dumps(event, separators=(",", ":")).encode()
        told = {"content-type": "application/json", "user-agent": "Weightworks"}
        signed = signed_headers(message_id, body, secrets=secrets, now=time.time())
        return await self.reach.post(url, headers={**told, **signed}, body=body)

    def _note(self, one: Try, outcome: Outcome) -> None:
        with self._database.write() as session:
            factor = self._settings.webhook_pause_factor
            is_switched_off = deliveries.note_outcome(session, one, outcome, pause_factor=factor)
        if is_switched_off:
            log.warning(
                "the webhook endpoint %s of %s is switched off: it has taken nothing for %g days",
                *(one.endpoint_id, one.project_id, deliveries.FAILING_DAYS),
            )


def _give_back(places: Counter[str], project_id: str) -> None:
    places[project_id] -= 1
    if not places[project_id]:
        del places[project_id]


def signed_headers(message_id: str, body: bytes, *, secrets: Sequence[str], now: float) -> dict[str, str]:
    """What a receiver verifies: a signature for each secret that is good now, of the message's id, time and body."""
    timestamp = str(int(now))
    content = b".".join([message_id.encode(), timestamp.encode(), body])
    signatures = [
        hmac.digest(base64.b64decode(secret.removeprefix(PREFIX)), content, hashlib.sha256) for secret in secrets
    ]
    signature = " ".join(f"v1,{base64.b64encode(one).decode()}" for one in signatures)
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
