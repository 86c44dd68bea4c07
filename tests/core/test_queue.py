"""Wake-ups: through a socket with a password and a database, and quick to give up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from kombu.exceptions import OperationalError

from core.jobs.events import NewEvent, as_row
from core.jobs.models.jobs import Event
from core.progress import PUBLISH_SECONDS, Publisher
from core.queue import LOOK, QUEUES, broker_url, make_app
from tests.faults.parts import until

PASSWORD = "p/w: with @ all"


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A Redis of this test's own, to stop and kill."""
    binary = Path(sys.executable).with_name("redis-server")
    socket = tmp_path / "r.sock"
    arguments = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", tmp_path, "--requirepass", PASSWORD]
    server = subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if "ready to accept connections" in line.lower():
            break
    yield f"unix://:{quote(PASSWORD, safe='')}@{socket}?db=2", server
    server.stdout.close()
    server.kill()
    server.wait()


def test_a_tcp_address_is_left_as_it_is() -> None:
    assert broker_url("redis://:pw@host:6380/3") == "redis://:pw@host:6380/3"
    assert broker_url("unix:///run/redis.sock") == "redis+socket:///run/redis.sock?virtual_host=0"


def test_a_wake_up_arrives_in_the_database_that_was_named(private_redis) -> None:
    url, _ = private_redis
    with make_app(url) as app:
        app.send_task(LOOK, queue=QUEUES["cpu"], ignore_result=True)
    client = redis.Redis.from_url(url)
    assert client.llen("weightworks:celery:weightworks.any") == 1
    client.close()


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
def test_a_wake_up_gives_up_within_its_two_seconds(private_redis, fault: signal.Signals) -> None:
    url, server = private_redis
    with make_app(url) as app:
        app.send_task(LOOK, queue=QUEUES["auto"], ignore_result=True)
        server.send_signal(fault)
        for _ in range(2):  # once on the connection that is there, once on a new one
            started = time.monotonic()
            with pytest.raises(OperationalError):
                app.send_task(LOOK, queue=QUEUES["auto"], ignore_result=True)
            assert time.monotonic() - started < 3.9  # a second try would take it to four seconds


def test_publishing_costs_little_while_redis_hangs_and_goes_on_after(private_redis) -> None:
    url, server = private_redis
    publisher = Publisher(url)
    rows = [as_row("job-1", 1, seq, NewEvent("log", f"line {seq}"), now=1.0) for seq in range(1, 40)]
    publisher.publish(rows[:1])
    server.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    for row in rows[1:20]:
        publisher.publish([row])
    assert time.monotonic() - started < 19 * PUBLISH_SECONDS / 2
    server.send_signal(signal.SIGCONT)

    def is_published(row: Event) -> bool:
        publisher.publish([row])
        return [event.seq for event in publisher.published("job-1")[-1:]] == [row.seq]

    for row in rows[20:]:
        until(partial(is_published, row))
    publisher.publish(rows)  # late, and there already
    numbers = [event.seq for event in publisher.published("job-1")]
    assert numbers == sorted(set(numbers))
    publisher.close()
