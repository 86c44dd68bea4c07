"""The trainer: one attempt at one job, in a process of its own, under the orders of its supervisor.

It is told the spec, says which files and models that names, is told where they lie, and trains. Meanwhile one thread
sends its news and one listens, so that the thread that trains never waits for anyone.
"""

from __future__ import annotations

import faulthandler
import hashlib
import math
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

from core.catalog import read_spec
from core.errors import CheckpointDamaged, TrainingFailed, WeightworksError
from core.execution import train
from core.memory import is_out_of_memory
from core.processes import die_with_parent, limit_memory, status_bytes
from core.restoring import unpack_input
from core.spec import JobReference, MethodSpec, files_of, models_of
from core.storage import refusal_of
from core.training.artifacts import MANIFEST, ArtifactFile, media_type
from core.training.checkpoint import CheckpointFile, read_checkpoint
from core.training.run import Control, Interrupted, Level, Run
from core.training.samples import Sample
from worker.channel import Channel, Message
from worker.trainers import UNSUPERVISED

ALIVE_SECONDS = 1.0
LISTEN_SECONDS = 0.2


class Trainer:
    """Takes orders over the channel, trains, and reports."""

    def __init__(self, channel: Channel) -> None:
        self.control = Control()
        self.sender = Sender(channel)
        self.listener = Listener(channel, self.control)

    def run(self) -> int:
        """Train; answers the process's exit status. Whatever goes wrong is reported, and its traceback printed."""
        signal.signal(signal.SIGTERM, lambda number, frame: self.listener.ask("interrupt"))
        faulthandler.enable()
        children_die_too()
        self.sender.start()
        self.listener.start()
        try:
            self.sender.send(self._train())
            status = 0
        except BaseException as error:
            traceback.print_exc()
            self.sender.send(as_failure(error))
            status = 1
        self.sender.finish()
        sys.stdout.flush()
        sys.stderr.flush()
        return status

    def _train(self) -> Message:
        order = self.listener.orders.get()
        if order["threads"]:
            torch.set_num_threads(order["threads"])
        spec = read_spec(order["spec"])
        if spec.device == "cpu" or not torch.cuda.is_available():  # CUDA asks for addresses without end
            limit_memory(order["memory_bytes"] - status_bytes("RssAnon"))
        self.sender.send(wants(spec))
        place = self.listener.orders.get()
        reporter = Reporter(self.sender)
        run = Run(
            spec=spec,
            inputs=unpack(place["inputs"], max_unpacked_bytes=place["max_unpacked_bytes"]),
            folder=Path(place["folder"]),
            reporter=reporter,
            control=self.control,
            resume=newest_whole(place["checkpoints"], reporter),
        )
        try:
            outcome = train(run, lineage=place["lineage"])
        except Interrupted:
            return {"type": "interrupted"}
        return {
            "type": "finished",
            "metrics": finite(outcome.metrics),
            "is_cancelled": outcome.is_cancelled,
            "files": [vars(file) for file in (*outcome.files, manifest_of(run.artifacts))],
        }


class Sender(threading.Thread):
    """Sends what is put into its queue, and a sign of life where there is nothing to send."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(name="sender", daemon=True)
        self.channel = channel
        self._queue: SimpleQueue[Message | None] = SimpleQueue()

    def send(self, message: Message) -> None:
        """Put a message on its way, without waiting."""
        self._queue.put(message)

    def finish(self) -> None:
        """Wait until all is sent."""
        self._queue.put(None)
        self.join()

    def run(self) -> None:
        """Send until told to finish."""
        while True:
            try:
                messages = [self._queue.get(timeout=ALIVE_SECONDS)]
                while not self._queue.empty():
                    messages.append(self._queue.get())
            except Empty:
                messages = [{"type": "alive"}]
            try:
                self.channel.send(*(message for message in messages if message is not None))
            except OSError:
                os._exit(UNSUPERVISED)
            if None in messages:
                return


class Listener(threading.Thread):
    """Hears the supervisor. Ends the process when the supervisor is gone, or has not renewed the lease in time."""

    def __init__(self, channel: Channel, control: Control) -> None:
        super().__init__(name="listener", daemon=True)
        self.channel = channel
        self.control = control
        self.orders: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._until = math.inf

    def ask(self, request: Any) -> None:
        """Ask the run to stop; a cancel comes before whatever else was asked."""
        if self.control.request is None or request == "cancel":
            self.control.request = request

    def run(self) -> None:
        """Until the process ends."""
        while True:
            left = self._until - time.monotonic()
            # A short while at a time: a select does not count how long its process is stopped (SIGSTOP).
            readable, _, _ = select.select([self.channel], [], [], max(0.0, min(left, LISTEN_SECONDS)))
            if not readable and left > 0:
                continue
            if not readable:
                print("The lease was not renewed in time: the trainer stops.", file=sys.stderr, flush=True)  # noqa: T201
                os._exit(UNSUPERVISED)
            try:
                for message in self.channel.receive():
                    self._take(message)
            except EOFError:
                os._exit(UNSUPERVISED)

    def _take(self, message: dict[str, Any]) -> None:
        if "until" in message:
            self._until = message["until"]  # by the clock that all processes of a machine share
        if message["type"] == "order":
            self.orders.put(message)
        elif message["type"] in ("cancel", "interrupt"):
            self.ask(message["type"])


class Reporter:
    """The run's news, put into the sender's queue: nothing more happens in the thread that trains."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self._told: set[str] = set()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers measured at a step; one that is not finite is told once, in words, since JSON has none."""
        numbers = finite(values)
        for name in values.keys() - numbers.keys() - self._told:
            self._told.add(name)
            self.message(f"{name} is {values[name]} at step {step}", "warn")
        if numbers:
            self.sender.send({"type": "metrics", "step": step, "values": numbers})

    def message(self, text: str, level: Level) -> None:
        """A sentence for whoever watches."""
        self.sender.send({"type": "message", "text": text, "level": level})

    def progress(self, step: int, total: int | None) -> None:
        """How far the run is."""
        self.sender.send({"type": "progress", "step": step, "total": total})

    def checkpoint(self, file: CheckpointFile) -> None:
        """A checkpoint was written."""
        self.sender.send({"type": "checkpoint", **vars(file), "path": str(file.path)})

    def shown(self, sample: Sample) -> None:
        """A picture or a text was made for people to look at."""
        self.sender.send({"type": "sample", **vars(sample), "path": str(sample.path)})


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The values that are numbers."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def manifest_of(artifacts: Path) -> ArtifactFile:
    """The manifest as a file to publish with those that it lists."""
    content = (artifacts / MANIFEST).read_bytes()
    return ArtifactFile(MANIFEST, len(content), hashlib.sha256(content).hexdigest(), media_type(MANIFEST))


def wants(spec: MethodSpec) -> Message:
    """What the spec names: files and models by field."""
    models = {
        field: reference.model_dump() if isinstance(reference, JobReference) else reference
        for field, reference in models_of(spec).items()
    }
    return {"type": "wants", "files": files_of(spec), "models": models}


def unpack(inputs: Mapping[str, Mapping[str, Any]], *, max_unpacked_bytes: int) -> dict[str, Path]:
    """The inputs' paths, where the supervisor said."""
    return {field: unpack_input(place, max_unpacked_bytes=max_unpacked_bytes) for field, place in inputs.items()}


def newest_whole(checkpoints: list[dict[str, Any]], reporter: Reporter) -> dict[str, Any] | None:
    """The state of the first checkpoint that is whole; says what it goes on from, and which ones are damaged."""
    for checkpoint in checkpoints:
        try:
            state = read_checkpoint(Path(checkpoint["path"]), sha256=checkpoint["sha256"])
        except CheckpointDamaged as error:
            reporter.message(f"The checkpoint of step {checkpoint['step']} is damaged: {error.message}.", "warn")
            continue
        reporter.message(f"Goes on from the checkpoint of step {checkpoint['step']}.", "info")
        return state
    if checkpoints:
        reporter.message("No checkpoint is whole: training starts from the beginning.", "warn")
    return None


def as_failure(error: BaseException) -> Message:
    """How an attempt's error is reported: in the user's terms, and whether another attempt may help."""
    refusal = refusal_of(error)
    is_on_host = is_out_of_memory(error) and not isinstance(error, torch.OutOfMemoryError)
    is_retryable = refusal is not None or is_on_host or isinstance(error, OSError)
    if refusal is not None:
        error = refusal
    elif isinstance(error, Exception) and is_out_of_memory(error):
        first = str(error).partition("\n")[0] or type(error).__name__
        who = "device" if isinstance(error, torch.OutOfMemoryError) else "trainer"
        error = TrainingFailed(
            f"the {who} ran out of memory: lower batch_size, or raise accumulate, or make the network or the data "
            f"smaller ({first[:200]})",
            code="out_of_memory",
        )
    elif not isinstance(error, WeightworksError):
        error = TrainingFailed(f"{type(error).__name__}: {error}")
    return {"type": "failed", "error": error.as_dict(), "is_retryable": is_retryable}


def children_die_too() -> None:
    """Have every child that is forked from here on, a data loader's say, end with this process."""
    os.register_at_fork(after_in_child=lambda: die_with_parent(os.getppid()))
