"""The live event stream: one Redis stream a job, whose ids are the events' own, beside the durable copy in SQL.

Redis may lose all of it at any moment: publishing never fails a run, and whoever reads checks that ids follow each
other and turns to SQL where they do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from core.jobs.events import EventId
from core.jobs.models.jobs import Event

STREAM_EVENTS = 10_000
STREAM_SECONDS = 24 * 3600
TIMEOUT_SECONDS = 2.0
PUBLISH_SECONDS = 0.5
SILENT_SECONDS = 2.0
BLOCK_MILLISECONDS = 200
QUEUED_EVENTS = 1000


def stream_key(job_id: str) -> str:
    """The name of a job's stream in Redis."""
    return f"weightworks:events:{job_id}"


def event_as_json(event: Event) -> str:
    """An event as it travels."""
    return json.dumps({column.key: getattr(event, column.key) for column in Event.__table__.columns})


def event_from_json(text: str | bytes) -> Event:
    """The event that `event_as_json` wrote."""
    return Event(**json.loads(text))


class Publisher:
    """Puts events into Redis; silent where Redis is away, since SQL has them too.

    A Redis that fails is left alone for a while, so that one that hangs costs whoever publishes little time.
    """

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(
            url,
            socket_timeout=PUBLISH_SECONDS,
            socket_connect_timeout=PUBLISH_SECONDS,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),  # redis-py 8 would try ten times
        )
        self.client.connection_pool.connection_class = _named_in_time(self.client.connection_pool.connection_class)
        self._silent_until = 0.0

    def publish(self, events: Iterable[Event]) -> None:
        """Append each event under its own id; one that is there already, or late, is skipped."""
        if time.monotonic() < self._silent_until:
            return
        try:
            pipe = self.client.pipeline(transaction=False)
            keys = set()
            for event in events:
                key = stream_key(event.job_id)
                keys.add(key)
                place = f"{event.fence}-{event.seq}"
                pipe.xadd(key, {"event": event_as_json(event)}, id=place, maxlen=STREAM_EVENTS, approximate=True)
            for key in keys:
                pipe.expire(key, STREAM_SECONDS)
            pipe.execute(raise_on_error=False)
        except RedisError:
            self._silent_until = time.monotonic() + SILENT_SECONDS

    def published(self, job_id: str, *, rest_of: EventId | None = None) -> list[Event]:
        """What Redis still has of a job: everything, or the rest of an event's fence; empty where Redis is away."""
        low, high = ("-", "+") if rest_of is None else (f"({rest_of}", str(rest_of.fence))
        try:
            entries: Any = self.client.xrange(stream_key(job_id), low, high)
        except RedisError:
            return []
        return [event_from_json(fields[b"event"]) for _, fields in entries]

    def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def _named_in_time(connection_class: Any) -> Any:
    """The same kind of connection, but one whose host's name is looked up for PUBLISH_SECONDS at most.

    No timeout of a socket bounds that: a container that is away takes its name along, and each look took 10 seconds.
    """

    class NamedInTime(connection_class):  # type: ignore[misc]
        def _connect(self) -> Any:
            look = threading.Thread(target=_look_up, args=(getattr(self, "host", None),), daemon=True)
            look.start()
            look.join(PUBLISH_SECONDS)
            if look.is_alive():
                raise redis.TimeoutError(f"the address of {self.host} could not be found in time")
            return super()._connect()

    return NamedInTime


def _look_up(host: str | None) -> None:
    if host is not None:  # as is that of a socket in a folder
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, None)


class Tail:
    """Follows the streams of all watched jobs with one blocking read, however many watch.

    Start `run()` as a task; `watch(job_id)` gives a queue of events as they come, from about now on. A queue that
    is full drops: its reader sees the gap in the ids, as after any loss, and turns to SQL.
    """

    def __init__(self, url: str) -> None:
        self.client = redis.asyncio.Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS + BLOCK_MILLISECONDS / 1000, socket_connect_timeout=TIMEOUT_SECONDS
        )
        self._watchers: dict[str, set[asyncio.Queue[Event]]] = {}
        self._places: dict[str, str] = {}
        self._is_watched = asyncio.Event()
        self.is_live = False  # whether the last read reached Redis

    @asynccontextmanager
    async def watch(self, job_id: str, *, after: EventId | None = None) -> AsyncIterator[asyncio.Queue[Event]]:
        """A queue of the job's events until the block ends: from `after` on for the job's first watcher, else from now.

        SQL gets events a moment later than Redis: whoever has just read SQL up to `after` misses none this way.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue(maxsize=QUEUED_EVENTS)
        self._watchers.setdefault(job_id, set()).add(queue)
        self._places.setdefault(job_id, str(after) if after is not None else "$")
        self._is_watched.set()
        try:
            yield queue
        finally:
            self._watchers[job_id].discard(queue)
            if not self._watchers[job_id]:
                del self._watchers[job_id], self._places[job_id]

    async def run(self) -> None:
        """Read until cancelled; where Redis is away, try again."""
        while True:
            await self._is_watched.wait()
            if not self._places:
                self._is_watched.clear()
                continue
            try:
                await self._read_once()
                self.is_live = True
            except (RedisError, OSError):
                self.is_live = False
                await asyncio.sleep(0.5)

    async def _read_once(self) -> None:
        await self._pin_new_places()
        streams: Any = {stream_key(job_id): place for job_id, place in self._places.items()}
        if not streams:
            return
        answer: Any = await self.client.xread(streams, block=BLOCK_MILLISECONDS)
        for key, entries in _pairs(answer):
            job_id = key.decode().removeprefix("weightworks:events:")
            for place, fields in entries:
                self._pass_on(job_id, place.decode(), fields[b"event"])

    async def _pin_new_places(self) -> None:
        """Turn `$` into the stream's last id, so that nothing is missed between two reads."""
        for job_id in [job_id for job_id, place in self._places.items() if place == "$"]:
            last: Any = await self.client.xrevrange(stream_key(job_id), count=1)
            if job_id in self._places:
                self._places[job_id] = last[0][0].decode() if last else "0-0"

    def _pass_on(self, job_id: str, place: str, content: bytes) -> None:
        if job_id not in self._watchers:
            return
        self._places[job_id] = place
        event = event_from_json(content)
        for queue in self._watchers[job_id]:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(event)

    async def close(self) -> None:
        """Close the connection."""
        await self.client.aclose()


def _pairs(answer: Any) -> Any:
    """The streams of an XREAD answer: a list of pairs in RESP2, a mapping to lists of lists in RESP3."""
    if isinstance(answer, dict):
        return [(key, [entry for chunk in chunks for entry in chunk]) for key, chunks in answer.items()]
    return answer or []
