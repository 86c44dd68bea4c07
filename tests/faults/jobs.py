"""A job that was submitted over HTTP and is watched: what becomes of it, and the processes that work at it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
from sqlalchemy import select

from core.jobs import checkpointing
from core.jobs.events import list_events
from core.jobs.ids import new_id
from core.jobs.models.jobs import Attempt, Event, Job
from core.jobs.models.results import Artifact, Checkpoint
from core.jobs.status import TERMINAL, Status
from tests.faults.parts import PATIENCE, Worker, suspended, until
from tests.faults.stack import Stack, is_fork_server
from tests.faults.watching import Watcher


@dataclass
class Expected:
    """How a job must end. `attempts`: how many count, None where that is open; `code`: the error's."""

    statuses: frozenset[str] = frozenset({"succeeded"})
    attempts: int | None = None
    code: str | None = None


class WatchedJob:
    """One job. `undisturbed`: the SHA-256 of the weights that its spec gives, where that is known."""

    def __init__(self, stack: Stack, spec: Mapping[str, Any], *, undisturbed: str | None = None) -> None:
        self.stack = stack
        self.spec = dict(spec)
        self.undisturbed = undisturbed
        self.expected = Expected()
        self.damaged: set[str] = set()  # checkpoints that a fault damaged, by key
        self.is_by_one_clock = True  # whether the times of its attempts and events can be compared
        key = new_id("key")
        answer = stack.request("POST", "/v1/jobs", json=self.spec, headers={"idempotency-key": key})
        if answer.status_code != 202:
            raise AssertionError(f"the job was refused: {answer.status_code} {answer.text}")
        self.id: str = answer.json()["id"]
        self.watcher = Watcher(stack.http, stack.apis.addresses, self.id)
        self.watcher.start()

    def expect(self, *statuses: str, attempts: int | None = None, code: str | None = None) -> None:
        """Say how it must end."""
        self.expected = Expected(frozenset(statuses), attempts, code)

    # Its rows.

    def row(self) -> Job:
        """The job's row."""
        found: Job = self.stack.read(lambda session: session.get_one(Job, self.id))
        return found

    def events(self, *types: str) -> list[Event]:
        """Its events in SQL."""
        found: list[Event] = self.stack.read(
            lambda session: list_events(session, self.id, types=types, limit=1_000_000)
        )
        return found

    def messages(self) -> list[str]:
        """What its events say."""
        return [event.message for event in self.events() if event.type != "log"]

    def story(self) -> str:
        """What became of it, in its own words."""
        return f"{self.id}: " + " | ".join(
            f"{event.fence}-{event.seq} {event.message}" for event in self.events("status", "message")
        )

    def is_ahead_of_sql(self) -> bool:
        """Whether the watcher has seen an event that SQL does not have yet."""
        seen, stored = self.watcher.events[-1:], self.events()[-1:]
        return bool(seen and stored) and seen[0].place > (stored[0].fence, stored[0].seq)

    def checkpoints(self) -> list[Checkpoint]:
        """Its checkpoints, the furthest first."""
        found: list[Checkpoint] = self.stack.read(lambda session: checkpointing.latest_checkpoints(session, self.id))
        return found

    def attempts(self) -> list[Attempt]:
        """Every claim of it, in order."""
        mine = select(Attempt).where(Attempt.job_id == self.id).order_by(Attempt.fence)
        found: list[Attempt] = self.stack.read(lambda session: session.scalars(mine).all())
        return found

    def artifacts(self) -> list[Artifact]:
        """Its published files."""
        found: list[Artifact] = self.stack.read(
            lambda session: list(session.scalars(select(Artifact).where(Artifact.job_id == self.id)))
        )
        return found

    # Over HTTP.

    def cancel(self) -> int:
        """Ask for its end; answers the HTTP status."""
        return self.stack.request("POST", f"/v1/jobs/{self.id}/cancel").status_code

    def retry(self) -> None:
        """Try it again, and watch it anew from its beginning."""
        self.stack.request("POST", f"/v1/jobs/{self.id}/retry").raise_for_status()
        self.watcher = Watcher(self.stack.http, self.stack.apis.addresses, self.id)
        self.watcher.start()

    def weights(self) -> bytes | None:
        """What can be downloaded as its weights; None if there are none."""
        answer = self.stack.request("GET", f"/v1/jobs/{self.id}/weights", follow_redirects=True)
        return answer.content if answer.status_code == 200 else None

    def weights_sha256(self) -> str | None:
        """Their SHA-256."""
        content = self.weights()
        return None if content is None else hashlib.sha256(content).hexdigest()

    def newest_checkpoint(self) -> bytes | None:
        """The furthest checkpoint, as the API hands it out; None if there is none."""
        listed = self.stack.request("GET", f"/v1/jobs/{self.id}/checkpoints").json()["data"]
        if not listed:
            return None
        answer = self.stack.request("GET", f"/v1/jobs/{self.id}/checkpoints/{listed[0]['id']}")
        return answer.content if answer.status_code == 200 else None

    # Its processes, while it runs.

    def supervisor(self) -> psutil.Process:
        """The process that supervises it."""
        owner: str = until(lambda: self.row().owner, what=f"for an owner of {self.id}")
        return psutil.Process(int(owner.rpartition("-")[2]))

    def worker(self) -> Worker:
        """The worker that trains it."""
        main = self.supervisor().ppid()
        return next(worker for worker in list(self.stack.workers) if worker.pid == main)

    def fork_server(self) -> psutil.Process:
        """The fork server of the worker that trains it."""
        return next(process for process in self.supervisor().children() if is_fork_server(process))

    def trainer(self) -> psutil.Process:
        """The process that trains it."""
        found: list[psutil.Process] = until(lambda: self.fork_server().children(), what=f"for a trainer of {self.id}")
        return found[0]

    @contextlib.contextmanager
    def stopped(self, *processes: psutil.Process, holding_lock: bool = False) -> Iterator[None]:
        """SIGSTOP to processes that write its row, until the block ends.

        `holding_lock`: in the midst of a transaction, or else outside of any. With SQLite one stopped in a transaction
        keeps everyone from writing anything, and no one can help it.
        """
        while True:
            with suspended(*processes):
                if self.stack.server.is_locked(self.id) == holding_lock:
                    yield
                    return
            self.until(lambda: True, what="for a moment to stop it")

    # Waiting.

    def until(self, look: Any, *, what: str, seconds: float = PATIENCE) -> Any:
        """What `look` answers once it is true; fails if the job ends before."""

        def found() -> Any:
            answer = look()
            if not answer and (status := self.row().status) in TERMINAL:
                raise AssertionError(f"{self.id} {status} before it could be disturbed: waited {what}")
            return answer

        return until(found, seconds=seconds, what=what)

    def until_claimed(self) -> None:
        """Wait until a worker has it."""
        self.until(lambda: self.row().status is Status.RUNNING, what="for a claim")

    def until_training(self) -> None:
        """Wait until it has told of a step."""
        self.until(lambda: any(seen.type == "metrics" for seen in list(self.watcher.events)), what="for a step")

    def until_checkpoint(self, count: int = 1) -> list[Checkpoint]:
        """Wait until it has so many checkpoints in the table."""
        found: list[Checkpoint] = self.until(
            lambda: rows if len(rows := self.checkpoints()) >= count else None, what="for a checkpoint"
        )
        return found

    def until_step(self, step: int) -> None:
        """Wait until it has told of this step."""
        self.until(
            lambda: any(
                seen.type == "metrics" and seen.data["data"]["step"] >= step for seen in list(self.watcher.events)
            ),
            what=f"for step {step}",
        )

    def until_renewed(self, times: int) -> None:
        """Wait until its lease was renewed so many times from now on."""
        for _ in range(times):
            before = self.row().lease_expires_at
            self.until(lambda before=before: self.row().lease_expires_at != before, what="for a renewal")

    def until_over(self, attempt: int) -> None:
        """Wait until this attempt at it has ended."""
        until(
            lambda: any(row.attempt == attempt and row.ended_at is not None for row in self.attempts()),
            what=f"for the end of attempt {attempt} at {self.id}",
        )

    def until_ended(self, seconds: float = PATIENCE) -> Job:
        """Wait until it is over."""
        found: Job = until(
            lambda: row if (row := self.row()).status in TERMINAL else None,
            seconds=seconds,
            what=f"for the end of {self.id}",
        )
        return found
