"""Sends one kind of POST to a server, over and over, from a process of its own, and takes little doing it.

    echo JSON | python -m benchmarks.service.load    # prints what it measured as JSON

The order: `host`, `port`, `path`, `headers`, `body` (a text in which %d becomes the number of the request), `clients`,
`seconds`, and `rate`. Rate 0: each client sends its next request when it has the answer to its last. Else so many
requests are due a second, and an answer's latency counts from when its request was due, sent late or not.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections import deque
from typing import Any

MOST_FAILURES = 200
HEAD_END, LENGTH = b"\r\n\r\n", b"content-length:"


class Connection(asyncio.Protocol):
    """One request at a time, kept alive; raises ConnectionError for any answer but 2xx."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[None] | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write."""
        self._transport = transport

    def request(self, content: bytes) -> asyncio.Future[None]:
        """Send a request; the answer's end resolves what is returned."""
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(content)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Gather the answer until it is whole."""
        self._received += data
        head, end, body = self._received.partition(HEAD_END)
        if self._answer is None or self._answer.done() or not end:
            return
        if not head.startswith(b"HTTP/1.1 2"):
            self._answer.set_exception(ConnectionError(f"{head[:100]!r} {body[:500]!r}"))
        elif len(body) >= int(head.lower().split(LENGTH, 1)[1].split(b"\r\n", 1)[0]):
            self._answer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits need not."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server hung up"))


class Requests:
    """The requests' bytes, numbered from `first` on."""

    def __init__(self, order: dict[str, Any]) -> None:
        lines = [f"POST {order['path']} HTTP/1.1", f"host: {order['host']}:{order['port']}"]
        lines += [f"{name}: {value}" for name, value in order["headers"].items()]
        self._head = "\r\n".join([*lines, "content-type: application/json", "content-length: "])
        self._body = order["body"]
        self._number = order.get("first", 0)

    def next(self) -> bytes:
        """The next one."""
        self._number += 1
        body = self._body.replace("%d", str(self._number))
        return f"{self._head}{len(body)}\r\n\r\n{body}".encode()


async def connect(order: dict[str, Any]) -> Connection:
    """An open connection."""
    _, protocol = await asyncio.get_running_loop().create_connection(Connection, order["host"], order["port"])
    return protocol


async def connect_again(order: dict[str, Any], error: Exception, failures: list[str]) -> Connection:
    """Another connection, with the failure of the last one noted; raises it where there were too many."""
    failures.append(str(error))
    if len(failures) > MOST_FAILURES:
        raise error
    return await connect(order)


async def send_at_will(order: dict[str, Any]) -> tuple[list[float], list[str]]:
    """Seconds that each answer took, and what failed; all clients send again as soon as they can."""
    requests, latencies, failures = Requests(order), [], []
    ends_at = time.perf_counter() + order["seconds"]

    async def client() -> None:
        connection = await connect(order)
        while (sent_at := time.perf_counter()) < ends_at:
            try:
                await connection.request(requests.next())
                latencies.append(time.perf_counter() - sent_at)
            except ConnectionError as error:
                connection = await connect_again(order, error, failures)

    await asyncio.gather(*[client() for _ in range(order["clients"])])
    return latencies, failures


async def send_at_rate(order: dict[str, Any]) -> tuple[list[float], list[str]]:
    """Seconds from when each request was due to its answer, and what failed; without a client that is free it waits."""
    requests, latencies, failures = Requests(order), [], []
    starts_at = time.perf_counter()
    due = deque(starts_at + number / order["rate"] for number in range(int(order["seconds"] * order["rate"])))

    async def client() -> None:
        connection = await connect(order)
        while due:
            due_at = due.popleft()
            await asyncio.sleep(due_at - time.perf_counter())
            try:
                await connection.request(requests.next())
                latencies.append(time.perf_counter() - due_at)
            except ConnectionError as error:
                connection = await connect_again(order, error, failures)

    await asyncio.gather(*[client() for _ in range(order["clients"])])
    return latencies, failures


def main() -> None:
    """Measure as the order says and print it."""
    order = json.load(sys.stdin)
    started_at = time.perf_counter()
    latencies, failures = asyncio.run((send_at_rate if order.get("rate") else send_at_will)(order))
    latencies.sort()
    seconds = time.perf_counter() - started_at
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "count": len(latencies),
        "failed": len(failures),
        "per_second": len(latencies) / seconds,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)],
        "own_cpu_share": (usage.ru_utime + usage.ru_stime) / seconds,
    }
    if failures:
        print(f"{len(failures)} requests failed, the first: {failures[0]}", file=sys.stderr)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
