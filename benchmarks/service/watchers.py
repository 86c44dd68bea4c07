"""Many live watchers of one job: from the event's publication to the last of the clients, beside the naive way.

The naive way is what a tutorial shows: each client has a generator of its own that blocks in XREAD on the job's stream.
Both sides get the same events from the same publisher, and the same lean clients:
one process of raw sockets for all of them. All processes read one monotonic clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.service.rows import claimed_job
from benchmarks.service.servers import answers, free_port, our_api, redis, running

EVENTS, EVENTS_PER_SECOND = 40, 4
MOST_FILES = 20_000
CONNECTS_AT_ONCE = 50
SENT = b'"sent":'  # where an event tells when it was published


class Watcher(asyncio.Protocol):
    """One client: notes of each event how long it was under way, by the monotonic clock."""

    def __init__(self, request: bytes, expected: int) -> None:
        self._request, self._expected, self._rest = request, expected, b""
        self.delays: list[float] = []
        self.is_watching = asyncio.get_running_loop().create_future()
        self.is_done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask for the stream."""
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take the events whose data is whole."""
        if not self.is_watching.done():
            self.is_watching.set_result(None)
        now = time.monotonic()
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for message in whole:
            if SENT in message:
                told = message.split(SENT, 1)[1].lstrip()
                self.delays.append(now - float(told[: told.index(b"}")]))
        if len(self.delays) >= self._expected and not self.is_done.done():
            self.is_done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """A stream that ends before all has come has lost something."""
        for future in (self.is_watching, self.is_done):
            if not future.done():
                future.set_result(None)


async def watch(order: dict[str, Any]) -> dict[str, float]:
    """Watch with many clients until each has all events, or time is up; says so once all are connected."""
    lines = [f"GET {order['path']} HTTP/1.1", "host: x", "accept: text/event-stream"]
    lines += [f"authorization: Bearer {order['key']}"] if order["key"] else []
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    loop, watchers = asyncio.get_running_loop(), []
    for start in range(0, order["clients"], CONNECTS_AT_ONCE):
        some = [Watcher(request, EVENTS) for _ in range(start, min(start + CONNECTS_AT_ONCE, order["clients"]))]
        for watcher in some:
            await loop.create_connection(lambda watcher=watcher: watcher, "127.0.0.1", order["port"])
        await asyncio.gather(*[watcher.is_watching for watcher in some])
        watchers += some
    print("watching", flush=True)
    started = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(EVENTS / EVENTS_PER_SECOND + 60):
            await asyncio.gather(*[watcher.is_done for watcher in watchers])
    ended = resource.getrusage(resource.RUSAGE_SELF)
    delays = sorted(delay for watcher in watchers for delay in watcher.delays)
    return {
        "lost": order["clients"] * EVENTS - len(delays),
        "p50_ms": 1000 * delays[len(delays) // 2],
        "p99_ms": 1000 * delays[len(delays) * 99 // 100],
        "max_ms": 1000 * delays[-1],
        "clients_cpu_s": ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime,
    }


def measured(clients: int, *, port: int, path: str, key: str, process: psutil.Process, publish: Any) -> Reading:
    """Publish events one by one while so many clients watch; `publish`: takes an event's number."""
    order = json.dumps({"clients": clients, "port": port, "path": path, "key": key})
    command = [sys.executable, "-m", "benchmarks.service.watchers", "watch", order]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        if watching.stdout.readline().strip() != "watching":
            raise RuntimeError("the clients could not connect")
        time.sleep(2)  # until whoever came last reads live, too
        cpu, starts_at = sum(process.cpu_times()[:2]), time.monotonic()
        for number in range(EVENTS):
            time.sleep(max(0.0, starts_at + number / EVENTS_PER_SECOND - time.monotonic()))
            publish(number)
        told = json.loads(watching.stdout.read())
    cpu_seconds = sum(process.cpu_times()[:2]) - cpu
    peak = process.memory_info().rss
    return Reading(value=told["p99_ms"], quality=told, cpu_seconds=cpu_seconds, peak_bytes=peak)


def ours(clients: int) -> Reading:
    """`GET /v1/jobs/{id}/events` of a running job; its worker's part is played by the functions that a worker uses."""
    from core.jobs.database import Database
    from core.jobs.events import NewEvent, as_row, insert_events
    from core.progress import Publisher

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        url = f"sqlite:///{folder}/jobs.sqlite3"
        unlimited = {"REQUESTS_PER_SECOND": "0", "REQUEST_BURST": "100000"}
        with our_api(folder, url, **unlimited) as server:
            database, publisher = Database(url), Publisher(f"unix://{folder}/redis.sock")
            claim = claimed_job(database)

            def publish(number: int) -> None:
                data = {"step": number, "values": {"loss": 0.5}, "sent": time.monotonic()}
                event = as_row(claim.job_id, claim.fence, number + 2, NewEvent("metrics", data=data), now=time.time())
                publisher.publish([event])
                with database.write() as session:  # a worker does so in batches
                    insert_events(session, [event])

            path = f"/v1/jobs/{claim.job_id}/events"
            process = psutil.Process(server.child.pid)
            return measured(clients, port=server.port, path=path, key=server.key, process=process, publish=publish)


def naive(clients: int) -> Reading:
    """A FastAPI app of a few lines, a blocking XREAD for each client."""
    import redis as client

    with tempfile.TemporaryDirectory() as place, redis(Path(place)) as redis_url:
        folder, port = Path(place), free_port()
        command = [sys.executable, "-m", "benchmarks.service.watchers", "serve", redis_url, str(port)]
        with running("naive", command, folder, ready=answers(f"http://127.0.0.1:{port}/ready")) as child:
            publisher = client.Redis.from_url(redis_url)

            def publish(number: int) -> None:
                data = {"step": number, "values": {"loss": 0.5}, "sent": time.monotonic()}
                publisher.xadd("job", {"event": json.dumps({"type": "metrics", "data": data})})

            process = psutil.Process(child.pid)
            reading = measured(clients, port=port, path="/events", key="", process=process, publish=publish)
            publisher.close()
            return reading


def serve(redis_url: str, port: int) -> None:
    """The naive server."""
    import redis.asyncio
    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    app = FastAPI()
    pool = redis.asyncio.Redis.from_url(redis_url, max_connections=10**5, socket_timeout=None)

    @app.get("/ready")
    async def ready() -> bool:
        return True

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def follow() -> Any:
            yield ": welcome\n\n"
            last = "$"
            while True:
                answer: Any = await pool.xread({"job": last}, block=30_000)
                streams = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or []]
                for entries in streams:
                    for place, fields in entries[0] if isinstance(answer, dict) else entries:
                        last = place
                        yield f"id: {place.decode()}\nevent: metrics\ndata: {fields[b'event'].decode()}\n\n"

        return StreamingResponse(follow(), media_type="text/event-stream")

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


def allow_many_files() -> None:
    """Let this process and those that it starts have a connection for each watcher."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(MOST_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def measure_ours(clients: int) -> Reading:
    """Weightworks."""
    allow_many_files()
    return ours(clients)


def measure_naive(clients: int) -> Reading:
    """The naive way."""
    allow_many_files()
    return naive(clients)


BENCHMARKS = [
    Benchmark(
        name="watchers",
        what="live watchers of one job, one API process: p99 from an event's publication to a client",
        unit="ms",
        more_is_better=False,
        goal=Goal(
            "at most a third of the naive way's (an XREAD for each client), p99 under 500 ms, no event lost",
            ratio=1 / 3,
            limits={"p99_ms": 500, "lost": 0},
        ),
        ours=Side("Weightworks", measure_ours, packages=("fastapi", "uvicorn", "redis")),
        peers=[Side("naive XREAD", measure_naive, packages=("fastapi", "uvicorn", "redis"))],
        size="clients",
        sizes=(150, 500, 1500),
    )
]

if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        print(json.dumps(asyncio.run(watch(json.loads(sys.argv[2])))))
