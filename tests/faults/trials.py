"""Faults by name, and a fault's turn on a stack: the jobs that it makes and disturbs, and what is found afterwards."""

from __future__ import annotations

import contextlib
import json
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import invariants
from tests.faults.disks import Disk
from tests.faults.invariants import WRONG_STATE, Violation
from tests.faults.jobs import WatchedJob
from tests.faults.parts import repeating
from tests.faults.stack import Stack

LONG = {"epochs": None, "steps": 250, "checkpoint_every": 20, "hidden_sizes": [256, 256]}
ENDLESS = {**LONG, "steps": 1_000_000}
REPLACE_SECONDS = 0.5

Act = Callable[["Trial"], None]


@dataclass(frozen=True)
class Fault:
    """A way to make trouble. `row`: in the table of faults; `is_alone`, `takes_worker`: as `fault` says."""

    row: int
    name: str
    act: Act
    is_alone: bool
    takes_worker: bool
    databases: tuple[str, ...]

    @property
    def id(self) -> str:
        """How tests name it."""
        return f"{self.row}: {self.name}"


FAULTS: list[Fault] = []


def fault(
    *,
    row: int,
    name: str,
    alone: bool = False,
    takes_worker: bool = False,
    databases: Sequence[str] = ("sqlite", "postgresql"),
) -> Callable[[Act], Act]:
    """Register a function that makes trouble at a stated moment.

    `alone`: nothing else runs meanwhile, since it breaks what all jobs stand on: the database, Redis, the APIs.
    `takes_worker`: a worker is away until the job has ended elsewhere; no two such faults at once.
    """

    def register(act: Act) -> Act:
        FAULTS.append(Fault(row, name, act, alone, takes_worker, tuple(databases)))
        return act

    return register


class CannotBeMade(Exception):  # noqa: N818 - not an error
    """This machine does not allow the fault; says why."""


class Trial:
    """One fault's turn on a stack."""

    def __init__(self, stack: Stack, references: References) -> None:
        self.stack = stack
        self.jobs: list[WatchedJob] = []
        self.violations: list[Violation] = []
        self._references = references

    def example(self, method: str, **changes: Any) -> dict[str, Any]:
        """The spec of a method's example, its data set uploaded."""
        return self._references.example(method, **changes)

    def submit(self, spec: Mapping[str, Any]) -> WatchedJob:
        """A job to be watched, and held to all invariants at the end."""
        job = WatchedJob(self.stack, spec)
        self.jobs.append(job)
        return job

    def training_job(self, **changes: Any) -> WatchedJob:
        """Some seconds of training, with checkpoints; the weights must be those of an undisturbed run."""
        spec = self.example("autoencoder", **{**LONG, **changes})
        undisturbed = self._references.weights_of(spec)
        job = self.submit(spec)
        job.undisturbed = undisturbed
        return job

    def endless_job(self, **changes: Any) -> WatchedJob:
        """Training that ends only when it is told to."""
        return self.submit(self.example("autoencoder", **{**ENDLESS, **changes}))

    def disk(self, path: Path) -> Disk:
        """The disk that is mounted there; raises CannotBeMade."""
        if self.stack.disks.why_not:
            raise CannotBeMade(self.stack.disks.why_not)
        return self.stack.disks[path]

    def require(self, holds: object, what: str, *, kind: str = WRONG_STATE) -> None:
        """Note a violation unless it holds."""
        if not holds:
            self.violations.append(Violation(kind, what))


class References:
    """Examples and the weights that they give undisturbed: each is made once for a stack."""

    def __init__(self, stack: Stack) -> None:
        self.jobs: list[WatchedJob] = []
        self._stack = stack
        self._files: dict[str, str] = {}
        self._weights: dict[str, str] = {}
        self._making = threading.RLock()

    def example(self, method: str, **changes: Any) -> dict[str, Any]:
        """The spec of a method's example, its data set uploaded."""
        told = self._stack.request("GET", f"/v1/methods/{method}").json()
        files = {field: self._uploaded(address) for field, address in told["example_files"].items()}
        files["dataset"] = self._uploaded(told["example"]["dataset"])
        return {**told["example"]["spec"], **files, **changes}

    def example_of_need(self, method: str, field: str) -> dict[str, Any]:
        """The spec of a job whose model the method's example takes in this field."""
        need = self._stack.request("GET", f"/v1/methods/{method}").json()["example_needs"][field]
        return {**need["spec"], "dataset": self._uploaded(need["dataset"])}

    def job_of(self, spec: Mapping[str, Any]) -> WatchedJob:
        """The undisturbed job of this spec."""
        return next(job for job in self.jobs if job.spec == spec)

    def _uploaded(self, address: str) -> str:
        """The id of an example's data set, sent back to where it came from."""
        with self._making:
            if address not in self._files:
                content = self._stack.request("GET", address).content
                answer = self._stack.request(
                    "POST", "/v1/files", files={"file": ("example", content)}, data={"purpose": "dataset"}
                )
                self._files[address] = answer.raise_for_status().json()["id"]
            return self._files[address]

    def weights_of(self, spec: Mapping[str, Any]) -> str:
        """The SHA-256 of the weights that this spec gives when nothing disturbs it."""
        name = json.dumps(spec, sort_keys=True)
        with self._making:
            if name not in self._weights:
                job = WatchedJob(self._stack, spec)
                self.jobs.append(job)
                if violations := invariants.check_job(job):
                    raise AssertionError(f"undisturbed, and yet: {'; '.join(map(str, violations))}")
                self._weights[name] = job.weights_sha256() or ""
            return self._weights[name]


def run_fault(fault: Fault, stack: Stack, references: References) -> list[Violation]:
    """Make the trouble, mend what broke, and check all that must hold."""
    trial = Trial(stack, references)
    try:
        with stack.one_worker_away if fault.takes_worker else contextlib.nullcontext():
            fault.act(trial)
    except CannotBeMade as reason:
        stack.skipped[fault.id] = str(reason)
    except Exception:
        trial.violations.append(Violation(WRONG_STATE, f"the fault went wrong: {traceback.format_exc()}"))
    stack.mend()
    found = [*trial.violations, *invariants.check(stack, trial.jobs)]
    if found:
        stack.stories[fault.id] = [job.story() for job in trial.jobs]
    return found


def run_faults(faults: Iterable[Fault], stack: Stack, *, at_once: int = 5) -> dict[str, list[Violation]]:
    """Run the faults, some at once, those that want to be alone one by one; answers what was found, by fault."""
    chosen = [fault for fault in faults if stack.kind in fault.databases]
    references = References(stack)
    found: dict[str, list[Violation]] = {}
    # Several may end a worker at once, and each waits for another worker to go on with its job.
    with repeating(stack.replace_workers, every=REPLACE_SECONDS), ThreadPoolExecutor(max_workers=at_once) as pool:
        together = [fault for fault in chosen if not fault.is_alone]
        runs = {fault.id: pool.submit(run_fault, fault, stack, references) for fault in together}
        found |= {name: run.result() for name, run in runs.items()}
    for fault in chosen:
        if fault.is_alone:
            found[fault.id] = run_fault(fault, stack, references)
    return found
