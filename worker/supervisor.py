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
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from core.errors import NotFound, WeightworksError
from core.jobs.attempts import forgive_attempt
from core.jobs.database import AWAY
from core.jobs.events import NewEvent
from core.jobs.inputs import lineage_of
from core.jobs.status import Asked
from core.settings import Settings
from core.storage import Storage, refusal_of, sample_key
from worker.checkpoints import CheckpointShelf
from worker.errands import Answer, Errands
from worker.journal import RETRY_SECONDS, Journal, first_line
from worker.memory import taken_bytes
from worker.output import OutputLines
from worker.placing import bring, look_up
from worker.rate import Rate
from worker.stopping import NEVER, Stopping
from worker.trainers import Trainer, Zygote, ZygoteDied

FLUSH_SECONDS = 0.5  # events reach SQL this late at most
SOON_SECONDS = 0.1  # a checkpoint is registered this late at most
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
        self.lineage: dict[str, Any] = {"job": journal.claim.job_id}
        self.ending: dict[str, Any] | None = None  # the trainer's last message: finished, interrupted, or failed
        self.is_told_to_leave = False  # and what becomes of the job then, its row says
        self.is_draining = False
        self.is_fenced_off = False
        self.is_stuck = False
        self.is_too_large = False
        self._folder = folder
        self._settings = settings
        self._memory_bytes = memory_bytes
        self._storage = storage
        self._zygote = zygote
        self._drains = drains
        self._margin = min(5.0, settings.lease_seconds / 5)
        self.errands = Errands()
        self._shelf = CheckpointShelf(self.claim, storage, self.errands)
        self._stopping = Stopping(trainer, zygote)
        self._output = OutputLines()
        self._rate = Rate()
        self._selector = selectors.DefaultSelector()
        self._open: set[Any] = set()
        self._asked: Asked | None = None
        self._wanted: dict[str, Any] | None = None
        self._should_forgive = False
        self._heard_at = time.monotonic()
        self._last_beat = journal.lease_ends - settings.lease_seconds  # the claim
        self._beat_at = self._last_beat + settings.renew_seconds
        self._place_at = NEVER
        self._weigh_at = self._heard_at
        self._take: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "wants": self._take_wants,
            "progress": self._take_progress,
            "metrics": self._take_metrics,
            "message": self._take_message,
            "checkpoint": self._take_checkpoint,
            "sample": self._take_sample,
            "finished": self._take_ending,
            "interrupted": self._take_ending,
            "failed": self._take_ending,
        }

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
            self._add(event)
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
            self._add(event)

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
            if message["type"] in self._take:
                self._take[message["type"]](message)

    def _take_wants(self, message: dict[str, Any]) -> None:
        self._wanted, self._place_at = message, 0.0

    def _take_progress(self, message: dict[str, Any]) -> None:
        step, total = message["step"], message["total"]
        rate = self._rate.note(step, at=time.monotonic())
        self.journal.progress = {"step": step, "total": total, "rate": rate, "at": round(self.journal.now(), 3)}

    def _take_metrics(self, message: dict[str, Any]) -> None:
        self.journal.metrics.update(message["values"])
        self._add(NewEvent("metrics", data={"step": message["step"], "values": message["values"]}))

    def _take_message(self, message: dict[str, Any]) -> None:
        self._add(NewEvent("message", message["text"], message["level"]))

    def _take_checkpoint(self, message: dict[str, Any]) -> None:
        self._shelf.put(message, metrics=self.journal.metrics, then=partial(self._note_checkpoint, message["step"]))

    def _note_checkpoint(self, step: int, error: OSError | None) -> None:
        if error is not None:
            self._add(NewEvent("message", f"The checkpoint of step {step} could not be kept: {error}.", "warn"))
        self._beat_at = min(self._beat_at, self._last_beat + SOON_SECONDS)

    def _take_sample(self, message: dict[str, Any]) -> None:
        path = Path(message["path"])
        put = partial(self._storage.link, path, sample_key(self.claim.job_id, self.claim.fence, path.name))
        self.errands.send(put, then=partial(self._note_sample, message, path.name))

    def _note_sample(self, message: dict[str, Any], name: str, answer: Answer[None]) -> None:
        try:
            answer()
        except OSError as error:
            text = f"What {message['name']} shows at step {message['step']} could not be kept: {error}."
            self._add(NewEvent("message", text, "warn"))
            return
        told = {name: message[name] for name in ("name", "step", "media_type", "bytes", "sha256")}
        self._add(NewEvent("sample", message["caption"], data={**told, "path": name}))

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
        self._add_lines(self._output.feed(chunk))

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

    def _add(self, event: NewEvent) -> None:
        self.journal.add(event)
        self._beat_at = min(self._beat_at, self._last_beat + FLUSH_SECONDS)

    def _add_lines(self, lines: list[str]) -> None:
        for line in lines:
            self._add(NewEvent("log", line, data={"attempt": self.claim.attempt}))

    def _tell(self, message: Mapping[str, Any]) -> None:
        """Send to the trainer; one that is ending need not hear it."""
        with contextlib.suppress(OSError):
            self.trainer.channel.send(message)

    def _ask(self, request: str) -> None:
        self.is_told_to_leave = True
        self._tell({"type": request})
        self._stopping.begin(grace=self._settings.stop_seconds)

    def _place_inputs(self) -> None:
        """Have what the spec names brought to where the trainer can read it, and tell it where that is."""
        try:
            needs = look_up(self.claim, self._wanted or {}, self.journal)
        except AWAY:
            self._place_at = time.monotonic() + RETRY_SECONDS
        except NotFound as error:
            self._give_up(error, is_retryable=False)
        else:
            self._place_at = NEVER
            self.lineage.update(lineage_of(needs.inputs))
            self.errands.send(partial(bring, needs, storage=self._storage, folder=self._folder), then=self._order)

    def _order(self, answer: Answer[dict[str, Any]]) -> None:
        try:
            places = answer()
        except NotFound as error:
            self._give_up(error, is_retryable=False)
        except OSError as error:
            reason = refusal_of(error) or WeightworksError(f"cannot place the inputs: {error}")
            self._give_up(reason, is_retryable=True)
        else:
            told = {"folder": str(self._folder), "max_unpacked_bytes": self._settings.max_unpacked_bytes}
            self._tell({"type": "order", **places, **told, "lineage": self.lineage})

    def _give_up(self, reason: WeightworksError, *, is_retryable: bool) -> None:
        self.ending = {"type": "failed", "error": reason.as_dict(), "is_retryable": is_retryable}
        self._place_at = NEVER
        self._stopping.kill()

    # Time.

    def _next_at(self) -> float:
        deadlines = (self._place_at, self._weigh_at, self._stopping.due_at, self._lost_at(), self._stuck_at())
        return min(self._beat_at, self.journal.publish_at, *deadlines)

    def _lost_at(self) -> float:
        return NEVER if self._stopping.is_killed else self._trainer_until()

    def _stuck_at(self) -> float:
        silence = SILENT_LEASES * self._settings.lease_seconds
        return NEVER if self._stopping.is_killed else self._heard_at + silence

    def _keep_time(self) -> None:
        if time.monotonic() >= self._place_at:
            self._place_inputs()
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
        self._add_lines(self._output.end())
