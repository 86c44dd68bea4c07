"""The supervisor: relays what a trainer says, keeps the job's lease, and has the trainer stop when it must."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from core.errors import NotFound, WeightworksError
from core.jobs.attempts import forgive_attempt
from core.jobs.database import AWAY
from core.jobs.status import Asked
from core.settings import Settings
from core.storage import Storage
from worker.checkpoints import CheckpointShelf
from worker.errands import Answer, Errands
from worker.journal import RETRY_SECONDS, Journal, first_line
from worker.memory import taken_bytes
from worker.placing import Placing
from worker.relay import Relay
from worker.stopping import NEVER, Stopping
from worker.trainers import Trainer, Zygote, ZygoteDied

SILENT_LEASES = 3  # a trainer that gives no sign of life for so many leases is stuck
READ_BYTES = 1 << 16
BEAT_SECONDS = 0.1  # between two looks at the lease while storage is waited for
WEIGH_SECONDS = 2.0  # between two looks at how much memory the trainer has

T = TypeVar("T")

log = logging.getLogger(__name__)


class Supervisor:
    """Watches one trainer at one claimed job. After `watch`, its fields say how the attempt ended."""

    def __init__(
        self,
        trainer: Trainer,
        journal: Journal,
        *,
        folder: Path,
        settings: Settings,
        memory_bytes: int,
        storage: Storage,
        zygote: Zygote,
        drains: Sequence[int],
    ) -> None:
        self.trainer = trainer
        self.journal = journal
        self.claim = journal.claim
        self.retry_seconds = settings.retry_seconds
        self.ending: dict[str, Any] | None = None  # the trainer's last message: finished, interrupted, or failed
        self.is_told_to_leave = False  # and what becomes of the job then, its row says
        self.is_draining = False
        self.is_fenced_off = False
        self.is_stuck = False
        self.is_too_large = False
        self._settings = settings
        self._memory_bytes = memory_bytes
        self._zygote = zygote
        self._drains = drains
        self._margin = min(5.0, settings.lease_seconds / 5)
        self.errands = Errands()
        self._shelf = CheckpointShelf(self.claim, storage, self.errands)
        self._stopping = Stopping(trainer, zygote)
        self._relay = Relay(journal, self._shelf, storage=storage, errands=self.errands, hasten=self._hasten)
        self._placing = Placing(
            journal, storage, self.errands, folder=folder, settings=settings, tell=self._tell, give_up=self._give_up
        )
        self._selector = selectors.DefaultSelector()
        self._open: set[Any] = set()
        self._asked: Asked | None = None
        self._should_forgive = False
        self._heard_at = time.monotonic()
        self._last_beat = journal.lease_ends - settings.lease_seconds  # the claim
        self._beat_at = self._last_beat + settings.renew_seconds
        self._weigh_at = self._heard_at
        self._take: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "wants": self._placing.want,
            "finished": self._take_ending,
            "interrupted": self._take_ending,
            "failed": self._take_ending,
        }

    @property
    def lineage(self) -> dict[str, Any]:
        """Where what the job starts from comes from, by the spec's field."""
        return self._placing.lineage

    def watch(self) -> None:
        """Until the trainer has ended, and nothing of it is left. Raises LeaseLost."""
        self.journal.insist(self.journal.open)
        self.beat()  # to claim the job and to fork may have taken nearly as long as a lease
        self._tell(
            {
                "type": "order",
                "spec": self.claim.spec,
                "threads": self._settings.threads,
                "memory_bytes": self._memory_bytes,
                "until": self._trainer_until(),
            }
        )
        self._listen(self.trainer.channel, self._hear)
        self._listen(self.trainer.output, self._read_output)
        self._listen(self._zygote.channel, self._note_ended)
        self._listen(self.errands, self.errands.finish)
        for drain in self._drains:
            self._listen(drain, self._start_draining)
        while self.trainer.status is None:
            for key, _ in self._selector.select(max(0.0, self._next_at() - time.monotonic())):
                key.data()
            self.journal.publish()
            self._keep_time()
        self._read_what_is_left()

    def beat(self) -> None:
        """Renew the lease and write what is new, if it is time. Raises LeaseLost."""
        now = time.monotonic()
        if now < self._beat_at:
            return
        try:
            asked = self.journal.write(self._change)
        except AWAY as error:
            log.warning("job %s: the database is away: %s", self.claim.job_id, first_line(error))
            self._beat_at = time.monotonic() + RETRY_SECONDS
            return
        self._last_beat, self._beat_at = now, now + self._settings.renew_seconds
        self._should_forgive = False
        for event in self._shelf.registered():
            self._relay.add(event)
        self._tell({"type": "renewed", "until": self._trainer_until()})
        if asked is not None and asked is not self._asked:
            self._asked = asked
            self._ask("cancel" if asked is Asked.CANCEL else "interrupt")

    def wait_for(self, action: Callable[[], T]) -> T:
        """Do what takes storage a while, after what was begun before it, and keep the lease meanwhile.

        Raises what it raises, and LeaseLost.
        """
        answers: list[Answer[T]] = []
        self.errands.send(action, then=answers.append)
        self.finish_errands()
        return answers[0]()

    def finish_errands(self) -> None:
        """Wait until storage has what the trainer left, and keep the lease meanwhile. Raises LeaseLost."""
        while not self.errands.are_done:
            self.beat()
            select.select([self.errands], [], [], BEAT_SECONDS)
            self.errands.finish()

    def register_checkpoints(self) -> None:
        """Have the table know what the trainer wrote before it ended. Raises LeaseLost, or one of AWAY."""
        if self._shelf.is_empty:
            return
        self.journal.write(self._change)
        for event in self._shelf.registered():
            self._relay.add(event)

    def must_leave(self) -> bool:
        """Whether the worker was told to leave."""
        return self.is_draining or bool(select.select(self._drains, [], [], 0)[0])

    def close(self) -> None:
        """End the trainer and all that it started, whatever happened, and leave its folder to whoever removes it."""
        if self.trainer.status is None:
            self._stopping.kill()
        self._zygote.sweep()
        self._selector.close()
        self.trainer.close()

    def leave(self) -> None:
        """Wait for nothing that storage still does."""
        self.errands.close()

    def _hasten(self, seconds: float) -> None:
        """Have the next beat this soon after the last one, at most."""
        self._beat_at = min(self._beat_at, self._last_beat + seconds)

    def _change(self, session: Session) -> None:
        """What a beat writes beside the events."""
        self._shelf.register(session)
        if self._should_forgive:
            forgive_attempt(session, self.claim)

    def _trainer_until(self) -> float:
        """When the trainer stops itself unless it hears of a renewal."""
        return self.journal.lease_ends - self._margin

    # What comes in.

    def _listen(self, source: Any, take: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, take)
        self._open.add(source)

    def _ignore(self, source: Any) -> None:
        self._selector.unregister(source)
        self._open.discard(source)

    def _hear(self) -> None:
        self._heard_at = time.monotonic()
        try:
            messages = self.trainer.channel.receive()
        except EOFError:
            self._ignore(self.trainer.channel)
            self._stopping.begin(grace=self._settings.stop_seconds)
            return
        for message in messages:
            self._take.get(message["type"], self._relay.take)(message)

    def _take_ending(self, message: dict[str, Any]) -> None:
        self.ending = message
        self._stopping.begin(grace=self._settings.stop_seconds)

    def _read_output(self) -> None:
        try:
            chunk = os.read(self.trainer.output, READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._ignore(self.trainer.output)
        self._relay.take_output(chunk)

    def _note_ended(self) -> None:
        try:
            self._zygote.note_ended(self.trainer)
        except ZygoteDied as error:
            log.error("job %s: %s", self.claim.job_id, error)
            self._stopping.kill()
            self.trainer.status = int(signal.SIGKILL)

    def _start_draining(self) -> None:
        for drain in self._drains:
            self._ignore(drain)
        self.is_draining = self._should_forgive = True
        self._beat_at = 0.0
        self._ask("interrupt")

    # What goes out.

    def _tell(self, message: Mapping[str, Any]) -> None:
        """Send to the trainer; one that is ending need not hear it."""
        with contextlib.suppress(OSError):
            self.trainer.channel.send(message)

    def _ask(self, request: str) -> None:
        self.is_told_to_leave = True
        self._tell({"type": request})
        self._stopping.begin(grace=self._settings.stop_seconds)

    def _give_up(self, reason: WeightworksError) -> None:
        """End the attempt; what was not found will not be there for another one either."""
        is_retryable = not isinstance(reason, NotFound)
        self.ending = {"type": "failed", "error": reason.as_dict(), "is_retryable": is_retryable}
        self._stopping.kill()

    # Time.

    def _next_at(self) -> float:
        deadlines = (self._placing.due_at, self._weigh_at, self._stopping.due_at, self._lost_at(), self._stuck_at())
        return min(self._beat_at, self.journal.publish_at, *deadlines)

    def _lost_at(self) -> float:
        return NEVER if self._stopping.is_killed else self._trainer_until()

    def _stuck_at(self) -> float:
        silence = SILENT_LEASES * self._settings.lease_seconds
        return NEVER if self._stopping.is_killed else self._heard_at + silence

    def _keep_time(self) -> None:
        self._placing.act()
        self.beat()
        now = time.monotonic()
        if now >= self._lost_at():
            self.is_fenced_off = True
            self._stopping.kill()
        if now >= self._stuck_at():
            self.is_stuck = True
            self._stopping.kill()
        if now >= self._weigh_at:
            self._weigh_at = now + WEIGH_SECONDS
            self.is_too_large = taken_bytes(self.trainer.pid) > self._memory_bytes
            if self.is_too_large:
                self._weigh_at = NEVER
                self._stopping.kill()
        self._stopping.act()

    def _read_what_is_left(self) -> None:
        """What the trainer said and printed before it ended; its children are swept, so that the pipe has an end."""
        self._zygote.sweep()
        for source, read in ((self.trainer.channel, self._hear), (self.trainer.output, self._read_output)):
            while source in self._open and select.select([source], [], [], 0)[0]:
                read()
        self._relay.end_output()
