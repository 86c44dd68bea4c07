"""Steps a CPU second, on one thread: of a job through the local runner, and of loops as peers write them."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.frame import Benchmark, Goal, Reading, Side

if TYPE_CHECKING:
    import torch

    from core.spec import MethodSpec
    from core.training.run import Reporter, Request

WARM = 10  # steps before the clock is read: the first ones allocate, and choose their kernels
RECENT = 20  # the last losses, whose mean is reported
WHOLE = 5000  # steps of the job whose first ones are measured: what is done a few times weighs as it does in a run
SEED = 0


class Clock:
    """A run's control that reads the CPU seconds behind WARM steps and behind `steps` more, and cancels the rest."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.began = self.ended = 0.0

    def asked_at(self, step: int) -> Request | None:
        """Nothing, until the clock has been read twice."""
        if step == WARM:
            self.began = time.process_time()
        elif step == WARM + self.steps:
            self.ended = time.process_time()
        return "cancel" if step >= WARM + self.steps else None

    @property
    def rate(self) -> float:
        """Steps a CPU second."""
        return self.steps / (self.ended - self.began)


class Losses:
    """A run's reporter that keeps the losses, as often as they are sent."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Keep them."""
        for name, value in values.items():
            self.found.setdefault(name, []).append(value)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Messages, progress, checkpoints and pictures are let go."""
        return lambda *_: None


def run_job(spec: Mapping[str, Any], dataset: Path, *, steps: int) -> tuple[float, Path, dict[str, list[float]]]:
    """Train a job's spec as the command line does; answers steps a CPU second, the artifacts, and what it reported."""
    import torch

    from core.catalog import read_spec
    from core.execution import train
    from core.training.run import Run

    torch.set_num_threads(1)
    clock, losses = Clock(steps), Losses()
    whole: MethodSpec = read_spec({"seed": SEED, **spec, "dataset": "file-local", "steps": max(WHOLE, 2 * steps)})
    folder = Path(tempfile.mkdtemp(prefix="steps-"))
    reporter: Reporter = losses
    run = Run(spec=whole, inputs={"dataset": dataset}, folder=folder, reporter=reporter, control=clock)  # type: ignore[arg-type]
    train(run, lineage={})
    return clock.rate, run.artifacts, losses.found


def run_loop(step: Callable[[int], Any], *, steps: int) -> float:
    """Call `step` with 0, 1, 2 and so on, as often as a job of so many steps; answers steps a CPU second."""
    clock = Clock(steps)
    for number in range(WARM + steps + 1):
        clock.asked_at(number)
        step(number)
    return clock.rate


def fit(module: Any, batches: Any, *, steps: int) -> float:
    """Have Lightning's Trainer make as many steps, without what we do not do either; answers steps a CPU second."""
    import lightning

    clock = Clock(steps)

    class Begun(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
            clock.asked_at(number)

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=-1,
        max_epochs=1,
        limit_train_batches=WARM + steps + 1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Begun()],
    )
    trainer.fit(module, batches)
    return clock.rate


class Shuffled:
    """Batches of uint8 images as floats in [0, 1], each epoch in a new order, without end; for peers."""

    def __init__(self, images: torch.Tensor, batch_size: int) -> None:
        self.images, self.batch_size = images, batch_size

    def __iter__(self) -> Any:
        import torch

        while True:
            for rows in torch.randperm(len(self.images)).split(self.batch_size):
                if len(rows) == self.batch_size:
                    yield self.images[rows].float() / 255


def recent(losses: list[float]) -> float:
    """The mean of the last ones; nan where there are none."""
    return math.fsum(losses[-RECENT:]) / len(losses[-RECENT:]) if losses else math.nan


def digits(name: str = "train-images-idx3-ubyte") -> torch.Tensor:
    """MNIST's images, uint8 [rows, 1, 28, 28]."""
    from benchmarks.data import mnist
    from core.data.images import read_images

    return read_images(mnist(name)).pixels


def beside_plain(
    name: str,
    *,
    what: str,
    goal: str,
    ours: Callable[[int], Reading],
    plain: Callable[[int], Reading],
    other: Side,
    sizes: tuple[int, ...],
) -> Benchmark:
    """The row of a method's steps beside plain PyTorch, whose time may be exceeded by 2 %, and beside another peer."""
    return Benchmark(
        name=name,
        what=what,
        unit="steps/CPU s",
        more_is_better=True,
        goal=Goal(goal, ratios={"plain PyTorch": 1 / 1.02, other.name: 1.0}),
        ours=Side("Weightworks", ours, packages=("torch",)),
        peers=(Side("plain PyTorch", plain, packages=("torch",), is_peer=True), other),
        size="steps",
        sizes=sizes,
    )
