"""What must hold after every fault, for every job: the columns of the table, checked in one place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from core.jobs.models.jobs import Event
from core.jobs.status import TERMINAL, Status
from tests.faults.jobs import WatchedJob
from tests.faults.parts import until
from tests.faults.stack import Stack

LOST = "lost"
TWICE = "twice"
WRONG_STATE = "wrong state"
GAP = "gaps in the stream"
WEIGHTS = "weights that differ"
PROCESSES = "processes left"
FILES = "files wrong"
KINDS = (LOST, TWICE, WRONG_STATE, GAP, WEIGHTS, PROCESSES, FILES)

LATE_SECONDS = 0.05  # how far a supervisor's reckoning of the database's time may be off
TIDY_SECONDS = 60.0  # until what a fault left behind must be gone


@dataclass(frozen=True)
class Violation:
    """Something that must not be."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def check(stack: Stack, jobs: Sequence[WatchedJob]) -> list[Violation]:
    """Wait for the jobs' ends, and look at all that must hold."""
    found = [violation for job in jobs for violation in check_job(job)]
    return [*found, *check_processes(stack)]


def check_job(job: WatchedJob) -> list[Violation]:
    """All that must hold for one job."""
    try:
        job.until_ended()
    except TimeoutError as error:
        row = job.row()
        return [Violation(LOST, f"{error}: {row.status}, attempt {row.attempt}, fence {row.fence}")]
    looks: tuple[tuple[str, Callable[[WatchedJob], Iterator[str]]], ...] = (
        (WRONG_STATE, _wrong_state),
        (TWICE, _overlaps),
        (GAP, _gaps),
        (WEIGHTS, _other_weights),
        (FILES, _wrong_files),
    )
    return [Violation(kind, f"{job.id}: {what}") for kind, look in looks for what in look(job)]


def _wrong_state(job: WatchedJob) -> Iterator[str]:
    row, expected = job.row(), job.expected
    if row.status not in expected.statuses:
        yield f"{row.status} instead of {' or '.join(sorted(expected.statuses))}: {row.error}"
    if expected.attempts is not None and row.attempt != expected.attempts:
        yield f"{row.attempt} attempts count, instead of {expected.attempts}"
    code = (row.error or {}).get("code")
    if expected.code is not None and code != expected.code:
        yield f"its error is {code} instead of {expected.code}"
    if row.status not in TERMINAL or row.lease_expires_at is not None:
        yield f"{row.status} with a lease until {row.lease_expires_at}"


def _overlaps(job: WatchedJob) -> Iterator[str]:
    """Two claims at the same time, or a word of one after the next had begun."""
    attempts, events = job.attempts(), job.events()
    for attempt in attempts:
        if attempt.ended_at is None:
            yield f"the attempt of fence {attempt.fence} never ended"
    if not job.is_by_one_clock:
        return
    for one, other in pairwise(attempts):
        if one.ended_at is not None and one.ended_at > other.started_at:
            yield f"fence {one.fence} ended at {one.ended_at}, {other.fence} began at {other.started_at}"
    yield from _late_words(events)


def _late_words(events: Sequence[Event]) -> Iterator[str]:
    begins: dict[int, float] = {}
    for event in events:
        begins.setdefault(event.fence, event.created_at)
    for event in events:
        for fence, begin in begins.items():
            if fence > event.fence and event.created_at > begin + LATE_SECONDS:
                yield f"{event.fence}-{event.seq} was written after fence {fence} had begun"


def _gaps(job: WatchedJob) -> Iterator[str]:
    """What the watcher missed, or saw twice; what it saw and SQL does not have."""
    watcher = job.watcher
    try:
        until(lambda: watcher.is_done, seconds=TIDY_SECONDS)
    except TimeoutError:
        yield "the stream does not end"
    yield from watcher.refusals
    last = (0, 0)
    for seen in watcher.events:
        fence, seq = seen.place
        if (fence, seq) != (last[0], last[1] + 1) and not (fence > last[0] and seq == 1):
            yield f"{fence}-{seq} follows {last[0]}-{last[1]}"
        last = (fence, seq)
    stored = {(event.fence, event.seq): event.message for event in job.events()}
    shown = {seen.place: seen.data["message"] for seen in watcher.events}
    if stored != shown:
        missed, extra = sorted(stored.keys() - shown.keys()), sorted(shown.keys() - stored.keys())
        yield f"missed {_some(missed)}; not in SQL {_some(extra)}; {len(stored)} stored, {len(shown)} shown"


def _some(places: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{fence}-{seq}" for fence, seq in places[:5]) or "none"


def _other_weights(job: WatchedJob) -> Iterator[str]:
    if job.undisturbed is None or job.row().status is not Status.SUCCEEDED:
        return
    if (sha256 := job.weights_sha256()) != job.undisturbed:
        yield f"{sha256} instead of {job.undisturbed}"


def _wrong_files(job: WatchedJob) -> Iterator[str]:
    """Published files and checkpoints that are not there whole, and scratch that still is."""
    storage = job.stack.storage
    for artifact in job.artifacts():
        yield from _not_whole(storage.path(artifact.key), artifact.bytes, artifact.sha256)
    for checkpoint in job.checkpoints():
        if checkpoint.key not in job.damaged:
            yield from _not_whole(storage.path(checkpoint.key), checkpoint.bytes, checkpoint.sha256)
    runs = storage.root / "runs" / job.id
    try:
        until(lambda: not runs.exists(), seconds=TIDY_SECONDS)
    except TimeoutError:
        yield f"{runs} is left"


def _not_whole(path: Path, size: int, sha256: str) -> Iterator[str]:
    if not path.exists():
        yield f"{path} is not there"
    elif path.stat().st_size != size or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        yield f"{path} is not what was published"


def check_processes(stack: Stack) -> list[Violation]:
    """No process without its worker; no more trainers than jobs that run."""
    found = []
    try:
        until(lambda: not stack.left_over(), seconds=TIDY_SECONDS)
    except TimeoutError:
        found.append(Violation(PROCESSES, f"{[process.cmdline() for process in stack.left_over()]}"))
    try:
        until(lambda: len(stack.trainers()) <= stack.running_jobs(), seconds=TIDY_SECONDS)
    except TimeoutError:
        found.append(Violation(PROCESSES, f"{len(stack.trainers())} trainers, {stack.running_jobs()} running jobs"))
    return found
