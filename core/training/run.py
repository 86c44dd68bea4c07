"""The run: what a method's train function works with. It counts steps, logs, checkpoints, and notices when to stop."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch

from core.spec import MethodSpec
from core.training.checkpoint import CheckpointFile, write_checkpoint
from core.training.devices import choose_device
from core.training.history import History
from core.training.samples import Sample, Showable, write_sample
from core.training.watch import Watch

T = TypeVar("T")
Level = Literal["info", "warn", "error"]
Request = Literal["cancel", "interrupt"]

LOG_SECONDS = 0.2
CHECKPOINT_SECONDS = 30.0
CHECKPOINT_SHARE = 0.05  # of the time, at most: that of large networks takes long to write
EPOCH = "-epoch"  # in the names of such files
KEPT_CHECKPOINTS = 2
KEPT_EPOCHS = 3  # of the checkpoints at the end of an epoch, besides


class Stateful(Protocol):
    """What a checkpoint can hold: a module, an optimizer, a schedule, a sampler, a scaler."""

    def state_dict(self) -> Mapping[str, Any]:
        """Everything needed to go on."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Go on from there."""


class Reporter(Protocol):
    """Where a run's news goes: the supervisor, or the terminal."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers measured at a step."""

    def message(self, text: str, level: Level) -> None:
        """A sentence for whoever watches."""

    def progress(self, step: int, total: int | None) -> None:
        """How far the run is."""

    def checkpoint(self, file: CheckpointFile) -> None:
        """A checkpoint was written."""

    def shown(self, sample: Sample) -> None:
        """A picture or a text was made for people to look at."""


@dataclass
class Control:
    """What the outside asks of a run; set from another thread, read between steps."""

    request: Request | None = None

    def asked_at(self, step: int) -> Request | None:
        """What is asked of the run after `step` steps."""
        return self.request


class Interrupted(Exception):  # noqa: N818 - not an error
    """The run was told to leave: its checkpoint is written, and it will be taken up again elsewhere."""


@dataclass
class Run:
    """One attempt at training.

    `inputs`: a local path for each field of the spec that names a data set (a file) or a model (a folder).
    `folder`: the run's own; artifacts go to `folder / "artifacts"`, checkpoints to `folder / "checkpoints"`.
    `resume`: the state of an earlier attempt's checkpoint.
    """

    spec: MethodSpec
    inputs: Mapping[str, Path]
    folder: Path
    reporter: Reporter
    control: Control = field(default_factory=Control)
    resume: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.artifacts = self.folder / "artifacts"
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.device = choose_device(self.spec.device)
        self.generator = torch.Generator().manual_seed(self.spec.seed)
        self.history = History()
        self.watch = Watch()
        self.step = 0
        self.is_cancelled = False
        self.stop_reason: str | None = None
        self._tracked: dict[str, Stateful] = {}
        self._loop_start = 0
        self._is_in_step = False
        self._epochs_left: int | None = None  # behind the one that this step ends, if it does
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._last_log = self._last_checkpoint = time.monotonic()
        self._checkpoint_seconds, self._writing_seconds = CHECKPOINT_SECONDS, 0.0
        self._written_at = -1
        _seed_everything(self.spec.seed)
        if self.resume is not None:
            self.step = self.resume["step"]
            self.stop_reason = self.resume["stop_reason"]
            self.history.load_state_dict(self.resume["history"])

    @property
    def dataset(self) -> Path:
        """The data set's file."""
        return self.inputs["dataset"]

    def track(self, **objects: Stateful) -> None:
        """Name what a checkpoint must hold; when resuming, each object goes on from the checkpoint at once."""
        for name, thing in objects.items():
            self._tracked[name] = thing
            if self.resume is not None and name in self.resume["objects"]:
                thing.load_state_dict(self.resume["objects"][name])

    def steps(self, items: Sequence[T], *, total: int | None = None) -> Iterator[T]:
        """Go through `items`, one a step, from where the checkpoint left off.

        Between steps it logs, checkpoints, and obeys: a cancelled run's loop just ends, so that what was learned is
        saved as usual; an interrupted one writes a checkpoint and raises Interrupted. A second loop goes on counting.
        `total`: the steps of all loops together, if there are several.
        """
        start = self._loop_start
        end = start + len(items)
        self._loop_start = end
        if self.resume is not None and (self.step < end or self.stop_reason is not None):
            _set_random_states(self.resume["random"], self.generator, self.device)
            self.resume = None
        total = total if total is not None else end
        self._last_log, self._last_checkpoint = float("-inf"), time.monotonic()
        self.reporter.progress(self.step, total)
        while self.step < end and self.stop_reason is None and not self._should_stop():
            item = items[self.step - start]
            self._is_in_step = True
            yield item
            self._is_in_step = False
            self.step += 1
            self._after_step(total, is_last=self.step == end)
        self.flush_log()

    def log(self, **values: float | torch.Tensor) -> None:
        """Note this step's numbers (0-d tensors stay on their device); their means are sent a few times a second."""
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def report(self, **values: float) -> None:
        """Send numbers at once: what an evaluation found."""
        numbers = {name: float(value) for name, value in values.items()}
        step = self.step + self._is_in_step
        self.history.add(step, numbers)
        self.reporter.metrics(step, numbers)

    def message(self, text: str, level: Level = "info") -> None:
        """Say something to whoever watches."""
        self.reporter.message(text, level)

    def show(self, name: str, content: Showable, *, caption: str = "") -> Path:
        """Let people see what the run makes at this step: a picture or a text, kept with the step.

        `name`: letters, digits and underscores; what is shown under one name, step after step, belongs together.
        `content`: text, a matplotlib Figure, or images [count, 1 or 3 channels, height, width] with pixels in [0, 1].
        """
        step = self.step + self._is_in_step
        sample = write_sample(content, self.folder / "samples", name=name, step=step, caption=caption)
        self.reporter.shown(sample)
        return sample.path

    def stop_early(self, reason: str) -> None:
        """End the loop after this step."""
        self.stop_reason = reason
        self.message(f"Stopped early: {reason}")

    def end_epoch(self, *, left: int) -> None:
        """Say within a step that an epoch ends with it, and how many are `left`: its checkpoint can be a model.

        It is written where that takes at most a twentieth of the time; where the spec asks for `epoch_checkpoints`,
        that of the last epochs, which are the ones kept, in any case.
        """
        self._epochs_left = left

    def flush_log(self) -> None:
        """Send what `log` gathered since it was last sent."""
        if not self._sums:
            return
        numbers = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        self._last_log = time.monotonic()
        self.history.add(self.step, numbers)
        self.reporter.metrics(self.step, numbers)
        for warning in self.watch.warnings(self.step, numbers):
            self.message(warning, "warn")

    def checkpoint(self, *, is_epoch: bool = False) -> CheckpointFile:
        """Write everything needed to go on from here; the newest two are kept, and the newest three of epochs."""
        self.flush_log()
        started = time.monotonic()
        state = {
            "step": self.step,
            "stop_reason": self.stop_reason,
            "objects": {name: thing.state_dict() for name, thing in self._tracked.items()},
            "random": _random_states(self.generator, self.device),
            "history": self.history.state_dict(),
            "spec": self.spec.model_dump(mode="json"),
        }
        folder = self.folder / "checkpoints"
        path = folder / f"step-{self.step:09d}{EPOCH if is_epoch else ''}.safetensors"
        written = replace(write_checkpoint(state, path, step=self.step), is_epoch=is_epoch)
        _remove_old(folder)
        self._last_checkpoint, self._written_at = time.monotonic(), self.step
        self._writing_seconds = self._last_checkpoint - started
        self._checkpoint_seconds = max(CHECKPOINT_SECONDS, self._writing_seconds / CHECKPOINT_SHARE)
        self.reporter.checkpoint(written)
        return written

    def _should_stop(self) -> bool:
        asked = self.control.asked_at(self.step)
        if asked == "interrupt":
            self._checkpoint_here()
            raise Interrupted
        if asked == "cancel" and not self.is_cancelled:
            self.is_cancelled = True
            self._checkpoint_here()
        return self.is_cancelled

    def _after_step(self, total: int | None, *, is_last: bool) -> None:
        now = time.monotonic()
        if now - self._last_log >= LOG_SECONDS or is_last:
            self.flush_log()
            self._last_log = now
            self.reporter.progress(self.step, total)
        is_epoch = self._is_epoch_kept(now)
        every = getattr(self.spec, "checkpoint_every", None)
        is_due = self.step % every == 0 if every else now - self._last_checkpoint >= self._checkpoint_seconds
        if is_epoch or (is_due and not is_last and self._tracked):
            self.checkpoint(is_epoch=is_epoch)

    def _checkpoint_here(self) -> None:
        """Write a checkpoint, unless that of this step is there already."""
        if self._written_at != self.step:
            self.checkpoint()

    def _is_epoch_kept(self, now: float) -> bool:
        """Whether an epoch has ended with this step, and its checkpoint is to be written."""
        left, self._epochs_left = self._epochs_left, None
        if left is None:
            return False
        is_among_last = left < KEPT_EPOCHS or self.stop_reason is not None
        if is_among_last and getattr(self.spec, "epoch_checkpoints", False):
            return True
        return now - self._last_checkpoint >= self._writing_seconds / CHECKPOINT_SHARE


def _remove_old(folder: Path) -> None:
    """Those that are not kept: what is kept, the supervisor can still put into storage."""
    written = sorted(folder.glob("step-*.safetensors"))
    of_epochs = [path for path in written if path.stem.endswith(EPOCH)]
    for old in set(written) - {*written[-KEPT_CHECKPOINTS:], *of_epochs[-KEPT_EPOCHS:]}:
        old.unlink()


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _random_states(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "run": generator.get_state(),
    }
    if device.type == "cuda":  # to ask would start CUDA, and take device memory, for a run on the CPU too
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: Mapping[str, Any], generator: torch.Generator, device: torch.device) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    generator.set_state(states["run"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"])
