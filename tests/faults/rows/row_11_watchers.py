"""Row 11: very many watchers of one job, whom an API leaves, Redis too, and who go on with a new fence."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator

from tests.faults.invariants import GAP
from tests.faults.parts import PATIENCE, until
from tests.faults.stack import ADMIN_KEY, Stack
from tests.faults.trials import Trial, fault

WATCHERS = 1500
AGAIN_SECONDS = 0.2
BYTES_EACH = 200_000  # of the API's memory, for a watcher


@fault(
    row=11, name="1,500 watchers: an API restarts, Redis forgets, a new fence begins", alone=True, databases=["sqlite"]
)
def many_watchers(trial: Trial) -> None:
    stack = trial.stack
    memory = stack.apis.process(1).memory_info().rss
    job = trial.training_job()
    job.until_checkpoint()
    stack.request("POST", f"/v1/jobs/{job.id}/pause").raise_for_status()  # nothing happens while they come
    crowd = Crowd(stack, job.id)
    crowd.start()
    until(lambda: crowd.connected == WATCHERS, what="for all watchers")
    stack.redis.flush()
    stack.apis.kill(0)
    stack.apis.start(0)
    until(lambda: crowd.connected == WATCHERS, what="for all watchers, again")
    stack.request("POST", f"/v1/jobs/{job.id}/resume").raise_for_status()
    job.expect("succeeded", attempts=1)
    job.until_ended()
    crowd.join(PATIENCE)
    expected = [f"{event.fence}-{event.seq}" for event in job.events()]
    wrong = sum(seen != expected for seen in crowd.seen)
    trial.require(wrong == 0, f"{wrong} of {WATCHERS} watchers missed something, or saw it twice", kind=GAP)
    grown = stack.apis.process(1).memory_info().rss - memory
    trial.require(grown < WATCHERS * BYTES_EACH, f"the API grew by {grown:,} bytes")


class Crowd(threading.Thread):
    """Watchers in one thread; each connects again where its stream is cut, and notes the ids of what it sees."""

    def __init__(self, stack: Stack, job_id: str) -> None:
        super().__init__(name="crowd", daemon=True)
        self.connected = 0
        self.seen: list[list[str]] = [[] for _ in range(WATCHERS)]
        self._ports = [int(address.rpartition(":")[2]) for address in stack.apis.addresses]
        self._path = f"/v1/jobs/{job_id}/events"

    def run(self) -> None:
        """Until all have seen the end."""
        asyncio.run(self._watch_all())

    async def _watch_all(self) -> None:
        await asyncio.gather(*(self._watch(number) for number in range(WATCHERS)))

    async def _watch(self, number: int) -> None:
        ports = self._ports[number % 2 :] + self._ports[: number % 2]
        for port in itertools.cycle(ports):
            try:
                async for id in self._follow(port, self.seen[number]):
                    if id == "[DONE]":
                        return
                    self.seen[number].append(id)
            except OSError:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _follow(self, port: int, seen: list[str]) -> AsyncIterator[str]:
        """The ids of the events that come whole, and [DONE]."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        place = f"Last-Event-ID: {seen[-1]}\r\n" if seen else ""
        asked = f"Accept: text/event-stream\r\nAuthorization: Bearer {ADMIN_KEY}\r\n{place}"
        writer.write(f"GET {self._path} HTTP/1.0\r\nHost: localhost\r\n{asked}\r\n".encode())
        is_streaming, id = False, ""
        try:
            async for line in reader:
                if not is_streaming:
                    if line.startswith(b"HTTP/") and b" 200 " not in line:
                        raise OSError(line.decode())
                    is_streaming = line == b"\r\n"
                    self.connected += is_streaming
                elif line.startswith(b"id: "):
                    id = line[4:].strip().decode()
                elif line.startswith(b"data: [DONE]"):
                    yield "[DONE]"
                elif line == b"\n" and id:
                    yield id
                    id = ""
        finally:
            self.connected -= is_streaming
            writer.close()
