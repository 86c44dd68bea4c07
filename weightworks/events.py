"""A job's events as they happen, over any number of connections."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from weightworks.errors import NotConnected, RateLimited, ServerFailed
from weightworks.transport import Transport, pause

DONE = "[DONE]"
GIVE_UP_SECONDS = 300.0


@dataclass(frozen=True)
class Event:
    """Something that happened to a job. `type`: status, message, metrics, checkpoint or log."""

    id: str
    type: str
    message: str
    level: str
    created_at: float
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, int]:
        """Fence and number: the order of a job's events."""
        fence, _, seq = self.id.partition("-")
        return int(fence), int(seq)


def read_event(data: dict[str, Any]) -> Event:
    """An event as the API writes it."""
    return Event(
        id=data["id"],
        type=data["type"],
        message=data.get("message", ""),
        level=data.get("level", "info"),
        created_at=data.get("created_at", 0),
        data=data.get("data") or {},
    )


def follow(
    transport: Transport, job_id: str, *, after: str | None = None, give_up_seconds: float = GIVE_UP_SECONDS
) -> Iterator[Event]:
    """Every event behind `after`, live, each once, until the job has ended and there are no more.

    Connects again by itself, from the last event on. Raises NotConnected after `give_up_seconds` without an answer.
    """
    last, place, tried = after, (-1, -1), 0
    answered_at = time.monotonic()
    while True:
        try:
            for data in _messages(transport, job_id, last):
                answered_at, tried = time.monotonic(), 0
                if data == DONE:
                    return
                event = read_event(json.loads(data))
                if event.place > place:
                    last, place = event.id, event.place
                    yield event
        except (httpx.TransportError, NotConnected, ServerFailed, RateLimited):
            if time.monotonic() - answered_at > give_up_seconds:
                raise
        time.sleep(pause(tried))
        tried = min(tried + 1, 5)


def _messages(transport: Transport, job_id: str, last: str | None) -> Iterator[str]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last is not None:
        headers["Last-Event-ID"] = last
    with transport.stream(f"/v1/jobs/{job_id}/events", headers=headers, max_retries=0) as response:
        yield from sse_data(_lines(response))


def sse_data(lines: Iterator[str]) -> Iterator[str]:
    """The data of each message of a stream of server-sent events; comments and other fields are passed over."""
    gathered: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            gathered.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and gathered:
            yield "\n".join(gathered)
            gathered = []


def _lines(response: httpx.Response) -> Iterator[str]:
    """Lines as SSE has them; httpx would also break them at the other line ends that Unicode knows."""
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
