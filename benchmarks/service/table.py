"""How lists, looks and claims slow down as the table of jobs grows: the same calls with many jobs and with 1,000.

Both tables are served side by side and asked in turn, so that what the machine does besides hits both.
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.service.rows import fill
from benchmarks.service.servers import Server, database, our_api

FEW_JOBS = 1000
CALLS = 200


@dataclass
class Table:
    """A database with so many jobs, behind an API of its own."""

    url: str
    server: Server
    middle: str  # a job half way through the list

    def __post_init__(self) -> None:
        from core.jobs.database import Database

        self.http = http.client.HTTPConnection("127.0.0.1", self.server.port)
        self.database = Database(self.url)

    def get(self, path: str) -> None:
        """A GET that must answer 200."""
        self.http.request("GET", path, headers={"authorization": f"Bearer {self.server.key}"})
        answer = self.http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:300]!r}")

    def claim(self) -> None:
        """A claim by a worker without a GPU."""
        from core.jobs import claiming

        with self.database.write() as session:
            if claiming.claim_job(session, owner="benchmark", devices=("auto", "cpu"), lease_seconds=600) is None:
                raise RuntimeError("there was nothing to claim")

    def calls(self) -> Mapping[str, Callable[[], None]]:
        """What is measured."""
        paths = {
            "list": "/v1/jobs",
            "list_deep": f"/v1/jobs?after={self.middle}",
            "list_none": "/v1/jobs?status=paused",
            "list_filtered": "/v1/jobs?method=m1&status=failed&status=cancelled",
            "status": f"/v1/jobs/{self.middle}",
            "events": "/v1/jobs/job-1000000003/events?after=1-500",
        }
        return {**{name: partial(self.get, path) for name, path in paths.items()}, "claim": self.claim}


@contextmanager
def table(kind: str, jobs: int) -> Iterator[Table]:
    """A served table of so many jobs."""
    import hashlib

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(database(kind, folder))
        settings = {"REQUESTS_PER_SECOND": "0", "SWEEP_SECONDS": "3600"}
        server = stack.enter_context(our_api(folder, url, **settings))
        key = "ww-of-the-tables"
        fill(url, jobs, key_sha256=hashlib.sha256(key.encode()).hexdigest())
        middle = 1000000000 + jobs // 2 // 100 * 100  # of proj-0, and queued
        yield Table(url, Server(server.port, key, server.child), f"job-{middle}")


def measure(jobs: int, *, kind: str) -> Reading:
    """The largest ratio of any call's median, with so many jobs and with 1,000; milliseconds and p99 beside it."""
    with table(kind, FEW_JOBS) as few, table(kind, jobs) as many:
        sides = [few.calls(), many.calls()]
        seconds: list[dict[str, list[float]]] = [{name: [] for name in sides[0]} for _ in sides]
        for turn in range(-10, CALLS):
            for calls, found in zip(sides, seconds, strict=True):
                for name, call in calls.items():
                    if name == "claim" and turn >= FEW_JOBS // 20:
                        continue  # nothing would be left
                    started_at = time.perf_counter()
                    call()
                    if turn >= 0:  # the first are warming up
                        found[name].append(time.perf_counter() - started_at)
    return _reading(*seconds)


def _reading(few: Mapping[str, list[float]], many: Mapping[str, list[float]]) -> Reading:
    quality: dict[str, Any] = {}
    ratios, late = [], []
    for name in few:
        medians = [1000 * statistics.median(found[name]) for found in (few, many)]
        tails = [1000 * sorted(found[name])[-max(1, len(found[name]) // 100)] for found in (few, many)]
        ratios.append(medians[1] / medians[0])
        late.append(tails[1] / tails[0])
        quality |= {f"{name}_p50_ms": medians[1], f"{name}_p99_ms": tails[1], f"{name}_p50_ratio": ratios[-1]}
    return Reading(value=max(ratios), quality={"p50_ratio": max(ratios), "p99_ratio": max(late), **quality})


BENCHMARKS = [
    Benchmark(
        name=f"table-{kind}",
        what=f"lists, a look, a page of events and claims with many jobs in {title}, beside the same with 1,000",
        unit="x the time with 1,000 jobs",
        more_is_better=False,
        goal=Goal("at most 1.5x of 1,000 jobs, in the median and p99", limits={"p50_ratio": 1.5, "p99_ratio": 1.5}),
        ours=Side("Weightworks", partial(measure, kind=kind), packages=("sqlalchemy",)),
        peers=[],
        size="jobs",
        sizes=(10_000, 100_000),
        full_sizes=(100_000, 1_000_000),
    )
    for kind, title in (("sqlite", "SQLite"), ("postgresql", "PostgreSQL"))
]
