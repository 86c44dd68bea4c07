"""A job's events as server-sent events: from SQL first, then from Redis as they happen, without gap or repeat."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from weakref import WeakKeyDictionary

from starlette.responses import StreamingResponse

from api.answers.events import event_object
from api.dependencies import Server
from core.jobs.events import EventId
from core.jobs.models.jobs import Event
from core.jobs.status import TERMINAL

LOOK_SECONDS = 1.0  # how long Redis may say nothing before SQL is asked how far the job is
KEEP_ALIVE_SECONDS = 15.0
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": still here\n\n"
AT_ONCE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_encoded: WeakKeyDictionary[Event, bytes] = WeakKeyDictionary()  # as long as somebody still has the event


def event_stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    """Server-sent events as they come: no cache keeps them, and no proxy holds them back."""
    return StreamingResponse(events, media_type="text/event-stream", headers=AT_ONCE)


async def stream(server: Server, job_id: str, *, after: EventId | None) -> AsyncIterator[bytes]:
    """Every event behind `after` as server-sent events; ends with [DONE] once the job is over and all was sent."""
    async for events in follow(server, job_id, after=after):
        yield DONE if events is None else as_sse(events) or KEEP_ALIVE


async def follow(server: Server, job_id: str, *, after: EventId | None) -> AsyncIterator[Sequence[Event] | None]:
    """Every event behind `after`, some at a time, and none now and then while nothing happens; at the job's end None.

    An event from Redis is sent only if it directly follows the last one; whatever else comes means that SQL has to be
    read. So Redis may lose everything, or a new fence begin, and the stream just goes on. A reader too slow for its
    queue loses events from it, and finds them in SQL.
    """
    last, sent_at = after or EventId(), time.monotonic()
    while events := await server.reader.after(job_id, last):
        last = place_of(events[-1])
        yield events
    should_look = True
    async with server.tail.watch(job_id, after=last) as news:
        while not server.stopping.event.is_set():
            if should_look:
                look = await server.reader.look(job_id)
                while look is not None and look.last > last and (events := await server.reader.after(job_id, last)):
                    last, sent_at = place_of(events[-1]), time.monotonic()
                    yield events
                if look is None or (look.is_over and last >= look.last):
                    yield None
                    return
            batch = await _next_of(news)
            events, should_look = _following(batch, last)
            if events:
                last, sent_at = place_of(events[-1]), time.monotonic()
                yield events
            elif time.monotonic() - sent_at > KEEP_ALIVE_SECONDS:
                sent_at = time.monotonic()
                yield []


async def _next_of(news: asyncio.Queue[Event]) -> list[Event]:
    """What has come from Redis; none if nothing came in time."""
    batch = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):  # wait_for would make a task of each wait
            batch.append(await news.get())
    while not news.empty():
        batch.append(news.get_nowait())
    return batch


def _following(batch: Sequence[Event], last: EventId) -> tuple[list[Event], bool]:
    """The events that follow `last` one by one; and whether SQL should be asked: for a gap, silence, or an end."""
    taken: list[Event] = []
    should_look = not batch
    for event in batch:
        place = place_of(event)
        if place <= last:
            continue
        if place != EventId(last.fence, last.seq + 1):
            return taken, True
        taken.append(event)
        last = place
        should_look = should_look or event.data.get("status") in TERMINAL
    return taken, should_look


def place_of(event: Event) -> EventId:
    """Where an event stands in its job's stream."""
    return EventId(event.fence, event.seq)


def as_sse(events: Iterable[Event]) -> bytes:
    """Events as they go over the wire."""
    return b"".join(_one(event) for event in events)


def _one(event: Event) -> bytes:
    """The event as text, made once for all who watch: they are given the same object."""
    encoded = _encoded.get(event)
    if encoded is None:
        shown = event_object(event)
        encoded = f"id: {shown.id}\nevent: {shown.type}\ndata: {shown.model_dump_json()}\n\n".encode()
        _encoded[event] = encoded
    return encoded
