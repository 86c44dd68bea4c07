"""A job's events as server-sent events: from SQL first, then from Redis as they happen, without gap or repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from api.dependencies import Server
from api.presenting import event_object
from core.jobs.events import EventId, list_events
from core.jobs.models import Event, Job
from core.jobs.status import TERMINAL

PAGE_EVENTS = 500
LOOK_SECONDS = 5.0  # how often SQL is read while Redis answers but says nothing
AWAY_SECONDS = 1.0  # and while it does not answer
KEEP_ALIVE_SECONDS = 15.0
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": still here\n\n"


async def stream(server: Server, job_id: str, *, after: EventId | None) -> AsyncIterator[bytes]:
    """Every event behind `after`; ends with [DONE] once the job is over and all was sent.

    An event from Redis is sent only if it directly follows the last one; whatever else comes means that SQL has to be
    read. So Redis may lose everything, or a new fence begin, and the stream just goes on.
    """
    last = after or EventId()
    sent_at = time.monotonic()
    events, is_over = await run_in_threadpool(_read, server, job_id, last)
    async with server.tail.watch(job_id, after=place_of(events[-1]) if events else last) as news:
        while True:
            for event in events:
                last, sent_at = place_of(event), time.monotonic()
                yield as_sse(event)
            if is_over and len(events) < PAGE_EVENTS:
                yield DONE
                return
            while len(events) < PAGE_EVENTS:
                seconds = LOOK_SECONDS if server.tail.is_live else AWAY_SECONDS
                live = await _next(news, last, seconds)
                if live is None:
                    break
                last, sent_at = place_of(live), time.monotonic()
                yield as_sse(live)
            if time.monotonic() - sent_at > KEEP_ALIVE_SECONDS:
                sent_at = time.monotonic()
                yield KEEP_ALIVE
            events, is_over = await run_in_threadpool(_read, server, job_id, last)


def place_of(event: Event) -> EventId:
    """Where an event stands in its job's stream."""
    return EventId(event.fence, event.seq)


def _read(server: Server, job_id: str, last: EventId) -> tuple[list[Event], bool]:
    """The next events in SQL, and whether the job was over before they were read."""
    with server.database.read() as session:
        job = session.get(Job, job_id)
        is_over = job is None or job.status in TERMINAL
    with server.database.read() as session:
        return list_events(session, job_id, after=last, limit=PAGE_EVENTS), is_over


async def _next(news: asyncio.Queue[Event], last: EventId, seconds: float) -> Event | None:
    """The event that directly follows `last`; None where SQL should be read instead."""
    while True:
        try:
            event = await asyncio.wait_for(news.get(), seconds)
        except TimeoutError:
            return None
        place = (event.fence, event.seq)
        if place <= (last.fence, last.seq):
            continue
        if place == (last.fence, last.seq + 1) and event.type != "status":
            return event
        return None


def as_sse(event: Event) -> bytes:
    """One event as it goes over the wire."""
    shown = event_object(event)
    return f"id: {shown.id}\nevent: {shown.type}\ndata: {shown.model_dump_json()}\n\n".encode()
