"""What a trainer says and prints, handed on as its job's events; its checkpoints and samples go to storage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from core.jobs.events import NewEvent
from core.storage import Storage, sample_key
from worker.checkpoints import CheckpointShelf
from worker.errands import Answer, Errands
from worker.journal import Journal
from worker.output import OutputLines
from worker.rate import Rate

FLUSH_SECONDS = 0.5  # events reach SQL this late at most
SOON_SECONDS = 0.1  # a checkpoint is registered this late at most


class Relay:
    """Hands on what one trainer says. `hasten`: has the journal written within so many seconds of the last time."""

    def __init__(
        self,
        journal: Journal,
        shelf: CheckpointShelf,
        *,
        storage: Storage,
        errands: Errands,
        hasten: Callable[[float], None],
    ) -> None:
        self._journal = journal
        self._claim = journal.claim
        self._shelf = shelf
        self._storage = storage
        self._errands = errands
        self._hasten = hasten
        self._output = OutputLines()
        self._rate = Rate()
        self._take: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "progress": self._take_progress,
            "metrics": self._take_metrics,
            "message": self._take_message,
            "checkpoint": self._take_checkpoint,
            "sample": self._take_sample,
        }

    def take(self, message: dict[str, Any]) -> None:
        """Hand on a message; one of an unknown type is passed over."""
        if message["type"] in self._take:
            self._take[message["type"]](message)

    def take_output(self, chunk: bytes) -> None:
        """Hand on what the trainer printed, line by line."""
        self._add_lines(self._output.feed(chunk))

    def end_output(self) -> None:
        """Hand on a last line that has no end."""
        self._add_lines(self._output.end())

    def add(self, event: NewEvent) -> None:
        """Tell those who watch the job."""
        self._journal.add(event)
        self._hasten(FLUSH_SECONDS)

    def _add_lines(self, lines: list[str]) -> None:
        for line in lines:
            self.add(NewEvent("log", line, data={"attempt": self._claim.attempt}))

    def _take_progress(self, message: dict[str, Any]) -> None:
        step, total = message["step"], message["total"]
        rate = self._rate.note(step, at=time.monotonic())
        self._journal.progress = {"step": step, "total": total, "rate": rate, "at": round(self._journal.now(), 3)}

    def _take_metrics(self, message: dict[str, Any]) -> None:
        self._journal.metrics.update(message["values"])
        self.add(NewEvent("metrics", data={"step": message["step"], "values": message["values"]}))

    def _take_message(self, message: dict[str, Any]) -> None:
        self.add(NewEvent("message", message["text"], message["level"]))

    def _take_checkpoint(self, message: dict[str, Any]) -> None:
        self._shelf.put(message, metrics=self._journal.metrics, then=partial(self._note_checkpoint, message["step"]))

    def _note_checkpoint(self, step: int, error: OSError | None) -> None:
        if error is not None:
            self.add(NewEvent("message", f"The checkpoint of step {step} could not be kept: {error}.", "warn"))
        self._hasten(SOON_SECONDS)

    def _take_sample(self, message: dict[str, Any]) -> None:
        path = Path(message["path"])
        put = partial(self._storage.link, path, sample_key(self._claim.job_id, self._claim.fence, path.name))
        self._errands.send(put, then=partial(self._note_sample, message, path.name))

    def _note_sample(self, message: dict[str, Any], name: str, answer: Answer[None]) -> None:
        try:
            answer()
        except OSError as error:
            text = f"What {message['name']} shows at step {message['step']} could not be kept: {error}."
            self.add(NewEvent("message", text, "warn"))
            return
        told = {name: message[name] for name in ("name", "step", "media_type", "bytes", "sha256")}
        self.add(NewEvent("sample", message["caption"], data={**told, "path": name}))
