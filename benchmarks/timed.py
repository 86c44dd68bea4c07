"""Whole trainings, from the first step to the last: of a job through the local runner, and of transformers' Trainer."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.frame import Reading

if TYPE_CHECKING:
    from core.training.run import Reporter


@dataclass
class Stopwatch:
    """A run's reporter that notes when it came how far, and lets all else go."""

    made: float = field(default_factory=time.monotonic)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def progress(self, step: int = 0, total: int | None = None) -> None:
        """Note the time, and the most memory that the process has had."""
        self.wall.append(time.monotonic())
        self.cpu.append(time.process_time())
        self.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Metrics, messages, checkpoints and pictures are let go."""
        if name not in ("metrics", "message", "checkpoint", "shown"):
            raise AttributeError(name)
        return lambda *_: None

    def reading(self, count: float, **quality: float) -> Reading:
        """`count`, of whatever was gone through, a CPU second; beside it, a second, and the seconds of the set-up."""
        wall, cpu = self.wall[-1] - self.wall[0], self.cpu[-1] - self.cpu[0]
        beside = {"a_second": count / wall, "setup_seconds": self.wall[0] - self.made}
        return Reading(count / cpu, quality={**quality, **beside}, cpu_seconds=cpu, peak_bytes=self.peak_bytes)


def train_ours(spec: Mapping[str, Any], **inputs: Path) -> tuple[Stopwatch, Path]:
    """Train a spec as `python -m core train` does, on one thread; answers the times and the folder of artifacts."""
    import torch

    from core.catalog import read_spec
    from core.execution import train
    from core.training.run import Run

    torch.set_num_threads(1)
    named = {name: f"file-{name}" if name in ("dataset", "validation") else f"model-{name}" for name in inputs}
    watch = Stopwatch()
    reporter: Reporter = watch
    folder = Path(tempfile.mkdtemp(prefix="timed-"))
    run = Run(spec=read_spec({**spec, **named}), inputs=inputs, folder=folder, reporter=reporter)
    train(run, lineage={})
    return watch, run.artifacts


def train_theirs(make: Callable[..., Any]) -> tuple[Stopwatch, Any]:
    """Have `make(callbacks=...)` make a Trainer, and train by it on one thread; answers the times and the Trainer."""
    import torch
    import transformers

    torch.set_num_threads(1)
    watch = Stopwatch()

    class Times(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.progress()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            watch.progress()

    trainer = make(callbacks=[Times()])
    trainer.train()
    return watch, trainer


def train_by_trl(
    method: str, told: Mapping[str, Any], *, base: Path, data: Sequence[Mapping[str, Any]], tokenizer: Any, **more: Any
) -> tuple[Stopwatch, Path]:
    """Train a causal language model by TRL's trainer of a method; answers the times and the folder of the model."""
    import datasets
    import transformers
    import trl

    datasets.disable_progress_bars()
    config = getattr(trl, f"{method}Config")(**told, gradient_checkpointing=False, bf16=False)
    watch, trainer = train_theirs(
        lambda callbacks: getattr(trl, f"{method}Trainer")(
            model=transformers.AutoModelForCausalLM.from_pretrained(base),
            args=config,
            train_dataset=datasets.Dataset.from_list(list(data)),
            processing_class=tokenizer,
            callbacks=callbacks,
            **more,
        )
    )
    trainer.save_model(config.output_dir)
    tokenizer.save_pretrained(config.output_dir)
    return watch, Path(config.output_dir)


def arguments(settings: Mapping[str, Any], *, steps: int, batch_size: int, **more: Any) -> dict[str, Any]:
    """What every Trainer here is told: our settings by its names, a CPU, and neither bars, reports nor checkpoints."""
    return {
        "output_dir": tempfile.mkdtemp(prefix="timed-"),
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 50,
        "disable_tqdm": True,
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": settings["schedule"],
        "warmup_steps": round(settings["warmup"] * steps),
        "weight_decay": settings["weight_decay"],
        "max_grad_norm": 1.0,
        **more,
    }
