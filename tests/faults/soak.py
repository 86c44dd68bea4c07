"""`make soak`: jobs of all methods for minutes, random faults at random times; at the end every invariant of every job.

The same seed strikes the same faults in the same order; at what moment of a job, the machine decides.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from core.catalog import methods
from core.jobs.status import TERMINAL, Status
from tests.faults.invariants import KINDS, LOST, Violation, check_job, check_processes
from tests.faults.jobs import WatchedJob
from tests.faults.stack import Stack
from tests.faults.strikes import STRIKES
from tests.faults.trials import References

DATABASES = ("sqlite", "postgresql")
UNFINISHED = 8  # so many jobs are kept waiting or running
STRIKERS = 2
LONGER = 5
PAUSE_SECONDS = 4.0  # between two strikes of one striker, at most
PATIENCE = 300.0  # for all jobs together, once nothing strikes any more
SHOWN = 40
SETTINGS = {"MAX_ATTEMPTS": "20", "RETRY_SECONDS": "0.2", "REQUESTS_PER_SECOND": "0"}
MISSED = (AssertionError, TimeoutError, StopIteration, IndexError, OSError, psutil.Error)  # the moment was over

console = Console(width=None if Console().is_terminal else 150)


class Soak:
    """Jobs on one stack, and what strikes them."""

    def __init__(self, stack: Stack, *, seed: int) -> None:
        self.stack = stack
        self.jobs: list[WatchedJob] = []
        self.struck: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.errors: list[str] = []
        self._seed = seed
        self._references = References(stack)
        self._specs: dict[str, dict[str, Any]] = {}
        self._is_over = threading.Event()

    def prepare(self) -> None:
        """Run every method's example undisturbed: what its weights are, and what later jobs start from."""
        for name, method in methods().items():
            spec = self._references.example(name)
            for field, need in method.example.needs.items():
                needed = self._references.example_of_need(name, field)
                self._references.weights_of(needed)
                spec[field] = {"job": self._references.job_of(needed).id}
                self._specs[f"{name}'s {field} ({need.spec['method']})"] = needed
            spec |= longer(spec)
            if "checkpoint_every" in method.spec.model_fields:
                spec["checkpoint_every"] = 5
            self._references.weights_of(spec)
            self._specs[name] = spec
            console.print(f"{name}: undisturbed")

    def run(self, minutes: float) -> None:
        """Submit and strike, until the time is over."""
        chance = random.Random(self._seed)
        strikers = [
            threading.Thread(target=self._strike, args=[random.Random(self._seed + n)]) for n in range(STRIKERS)
        ]
        for striker in strikers:
            striker.start()
        ends_at = time.monotonic() + 60 * minutes
        while time.monotonic() < ends_at:
            if len(self.unfinished()) < UNFINISHED:
                self._submit(chance)
            time.sleep(0.1)
        self._is_over.set()
        for striker in strikers:
            striker.join()
        self.stack.mend()

    def unfinished(self) -> list[WatchedJob]:
        """The jobs whose end no watcher has seen."""
        return [job for job in list(self.jobs) if not job.watcher.is_done]

    def check(self) -> list[Violation]:
        """Wait for every job's end, then look at all that must hold."""
        ends_at = time.monotonic() + PATIENCE
        while time.monotonic() < ends_at and any(job.row().status not in TERMINAL for job in self.unfinished()):
            self._resume_paused()
            time.sleep(0.5)
        found = [Violation(LOST, error) for error in self.errors]
        for job in self.jobs:
            found += check_job(job)
        return [*found, *check_processes(self.stack)]

    def _submit(self, chance: random.Random) -> None:
        name = chance.choice(sorted(self._specs))
        try:
            spec = self._specs[name]
            job = WatchedJob(self.stack, spec, undisturbed=self._references.weights_of(spec))
        except (TimeoutError, AssertionError) as error:
            self.errors.append(f"{name} could not be submitted: {error}")
            return
        self.jobs.append(job)

    def _strike(self, chance: random.Random) -> None:
        weights = [one.weight for one in STRIKES]
        while not self._is_over.wait(chance.uniform(0.2, PAUSE_SECONDS)):
            (one,) = chance.choices(STRIKES, weights)
            running = [job for job in self.unfinished() if job.row().status is Status.RUNNING]
            if not running:
                continue
            try:
                one.act(self.stack, chance.choice(running), chance)
                self.struck[one.name] += 1
            except MISSED:
                self.missed[one.name] += 1
            with contextlib.suppress(TimeoutError):  # the other striker keeps it down
                self.stack.mend()

    def _resume_paused(self) -> None:
        """A strike that was missed may have left a job paused."""
        for job in self.unfinished():
            if job.row().status is Status.PAUSED:
                self.stack.request("POST", f"/v1/jobs/{job.id}/resume")


def longer(spec: Mapping[str, Any]) -> dict[str, int]:
    """What an example lasts for seconds with, so that a strike finds it at work."""
    return {field: LONGER * spec[field] for field in ("epochs", "steps") if spec.get(field)}


def main() -> int:
    """Soak as the command line says; answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="how long, on each database")
    parser.add_argument("--database", action="append", choices=DATABASES, help="only on this one")
    parser.add_argument("--seed", type=int, default=None, help="of the faults and the choice of jobs; none: random")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every stack is closed
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    kinds = options.database or DATABASES
    return max(soak(kind, minutes=options.minutes, seed=seed) for kind in kinds)


def soak(kind: str, *, minutes: float, seed: int) -> int:
    """Soak one database; answers the exit status."""
    console.print(f"{kind}: {minutes:g} minutes, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="ww-soak-") as folder:
        stack = Stack(Path(folder), kind, **SETTINGS)
        try:
            stack.start()
            run = Soak(stack, seed=seed)
            run.prepare()
            run.run(minutes)
            violations = run.check()
            for table in (jobs_table(run.jobs), strikes_table(run)):
                console.print(table)
        finally:
            stack.close()
    told = Counter(violation.kind for violation in violations)
    console.print(f"{kind}: {len(run.jobs)} jobs; " + ", ".join(f"{told[kind]} {kind}" for kind in KINDS))
    for violation in violations[:SHOWN]:
        console.print(f"[red]{violation.kind}[/red] {violation.what}", highlight=False)
    return 1 if violations else 0


def jobs_table(jobs: Sequence[WatchedJob]) -> Table:
    """How the jobs of each method ended, and in how many attempts."""
    states = [str(status) for status in Status]
    table = Table("method", "jobs", *states, "claims", title="Jobs")
    by_method: dict[str, list[WatchedJob]] = {}
    for job in jobs:
        by_method.setdefault(job.spec["method"], []).append(job)
    for method, some in sorted(by_method.items()):
        counts = Counter(str(job.row().status) for job in some)
        claims = sum(len(job.attempts()) for job in some)
        table.add_row(method, str(len(some)), *(str(counts[state]) for state in states), str(claims))
    return table


def strikes_table(run: Soak) -> Table:
    """How often each fault struck, and how often its moment was over."""
    table = Table("fault", "struck", "too late", title="Faults")
    for one in STRIKES:
        table.add_row(one.name, str(run.struck[one.name]), str(run.missed[one.name]))
    table.add_row("all", str(sum(run.struck.values())), str(sum(run.missed.values())))
    return table


if __name__ == "__main__":
    raise SystemExit(main())
