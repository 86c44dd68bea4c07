"""Measures what a job would take: trains its first steps for real: `python -m core.measuring DESCRIPTOR`.

See core/forking.py for how it is asked. An order has `spec`; `inputs`, as `core.placement` gives them; `folder`;
`step_seconds`, for which steps are made; `threads`; and `max_unpacked_bytes`. The answer is an `Estimate`, or why there
is none; what the job would end with is told as an error.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.catalog import read_spec
from core.errors import WeightworksError
from core.execution import train
from core.forking import Order, serve
from core.restoring import unpack_input
from core.training.checkpoint import CheckpointFile
from core.training.run import Control, Level, Request, Run
from core.training.samples import Sample
from core.warming import warm_up

IDLE_SECONDS = 600.0
LEAST_STEPS = 3  # the first is slower than the others: it is left out of the rate


@dataclass(frozen=True)
class Estimate:
    """What a job would take, by what its first steps took."""

    steps: int | None  # None where the method does not know beforehand
    seconds: float | None
    memory_bytes: int  # of the process on a CPU, of the device on a GPU, at its highest
    artifact_bytes: int
    device: str


@dataclass
class Stopwatch(Control):
    """Lets a run make steps for so many seconds, at least LEAST_STEPS of them, and notes when each began."""

    seconds: float = 2.0
    begun: list[float] = field(default_factory=list)

    def asked_at(self, step: int) -> Request | None:
        """Cancel once there has been enough."""
        self.begun.append(time.monotonic())
        has_enough = len(self.begun) > LEAST_STEPS and self.begun[-1] - self.begun[0] > self.seconds
        return "cancel" if has_enough else None


class Silence:
    """A reporter that keeps nothing but the number of steps."""

    total: int | None = None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Say nothing."""

    def message(self, text: str, level: Level) -> None:
        """Say nothing."""

    def progress(self, step: int, total: int | None) -> None:
        """Note how many steps there are to be."""
        self.total = total

    def checkpoint(self, file: CheckpointFile) -> None:
        """Say nothing."""

    def shown(self, sample: Sample) -> None:
        """Say nothing."""


def measure(spec: Mapping[str, Any], inputs: Mapping[str, Path], folder: Path, *, seconds: float) -> Estimate:
    """Train the first steps, end as a job ends, and reckon from there; raises what the job would raise."""
    started, watch, reporter = time.monotonic(), Stopwatch(seconds=seconds), Silence()
    run = Run(spec=read_spec(spec), inputs=inputs, folder=folder, reporter=reporter, control=watch)
    outcome = train(run, lineage={})
    took = time.monotonic() - started
    on_gpu = run.device.type == "cuda"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Estimate(
        steps=reporter.total,
        seconds=reckoned(watch.begun, total=reporter.total, took=took, is_whole=not outcome.is_cancelled),
        memory_bytes=torch.cuda.max_memory_allocated() if on_gpu else peak,
        artifact_bytes=sum(file.bytes for file in outcome.files),
        device=torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
    )


def reckoned(begun: list[float], *, total: int | None, took: float, is_whole: bool) -> float | None:
    """The seconds of the whole job, if it took `took` for the steps that were `begun` at these moments."""
    if is_whole:
        return took
    if total is None or len(begun) < LEAST_STEPS:
        return None
    step = (begun[-1] - begun[1]) / (len(begun) - 2)
    return took + step * (total - (len(begun) - 1))


def _answer(order: Order) -> dict[str, Any] | str:
    _be_silent()
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    try:
        limit = order["max_unpacked_bytes"]
        inputs = {name: unpack_input(place, max_unpacked_bytes=limit) for name, place in order["inputs"].items()}
        return asdict(measure(order["spec"], inputs, Path(order["folder"]), seconds=order["step_seconds"]))
    except WeightworksError:
        raise
    except Exception as error:  # of the library that trains, or of this machine: a worker's may do better
        return f"the first steps failed: {type(error).__name__}: {error}"[:300]


def _be_silent() -> None:
    """Keep what training prints out of the server's log."""
    with open(os.devnull, "wb") as nowhere:
        for descriptor in (1, 2):
            os.dup2(nowhere.fileno(), descriptor)


if __name__ == "__main__":
    serve(int(sys.argv[1]), _answer, warm_up=warm_up, idle_seconds=IDLE_SECONDS)
