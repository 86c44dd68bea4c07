"""Publishing costs little time, whatever becomes of Redis."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from core.jobs.models.jobs import Event
from core.progress import Publisher

SLOW_SECONDS = 5.0


def an_event() -> Event:
    return Event(job_id="job-1", fence=1, seq=1, type="message", level="info", message="", data={}, created_at=0)


def test_a_name_that_is_not_found_in_time_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is where a container is away: its name goes with it, and whoever looks it up waits for an answer."""
    looked_up = []

    def slow(host: Any, *_: Any, **__: Any) -> Any:
        looked_up.append(host)
        time.sleep(SLOW_SECONDS)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    publisher = Publisher("redis://redis.invalid:6379/0")
    began = time.monotonic()
    publisher.publish([an_event()])
    publisher.publish([an_event()])
    assert time.monotonic() - began < SLOW_SECONDS
    assert looked_up
    assert not publisher.ping()
    publisher.close()


def test_what_is_published_is_there(redis_url: str) -> None:
    publisher = Publisher(redis_url)
    publisher.publish([an_event()])
    assert [event.seq for event in publisher.published("job-1")] == [1]
    publisher.close()
