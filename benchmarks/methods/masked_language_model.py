"""Masked language modelling beside transformers' Trainer, and beside its own steps in a bare loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.language_models import CONTEXT, held_out, train_bare, train_here, train_with_trainer
from benchmarks.timed import Stopwatch

METHOD = "masked_language_model"
BATCH = 8


def ours(steps: int) -> Reading:
    """As a job."""
    return _read(steps, *train_here(METHOD, steps=steps, batch_size=BATCH))


def trainer(steps: int) -> Reading:
    """transformers' Trainer with its collator for masked language modelling."""
    return _read(steps, *train_with_trainer(METHOD, steps=steps, batch_size=BATCH))


def bare_loop(steps: int) -> Reading:
    """The very same steps with nothing around them."""
    return _read(steps, *train_bare(METHOD, _loss, steps=steps, batch_size=BATCH))


def _loss(model: Any, rows: Any, chosen: Any, step: int) -> Any:
    from core.data.masking import generator_of
    from core.methods.masked_language_model import masked_loss
    from core.training.language import count_targets

    hidden = model.hide(rows, chosen, generator=generator_of(0, step))
    return masked_loss(model.logits(hidden), hidden.targets) / count_targets(hidden)


def _read(steps: int, watch: Stopwatch, artifacts: Path) -> Reading:
    return watch.reading(steps * BATCH * CONTEXT, held_out_loss=held_out(METHOD, artifacts)["loss"])


BENCHMARKS = [
    Benchmark(
        name="masked-language-model",
        what="A BERT of 4 layers, 128 wide, 8,000 tokens, learns from books, on one thread; loss on what is held out.",
        unit="tokens/CPU s",
        more_is_better=True,
        goal=Goal(
            "1.5x Trainer at an equal loss; at most 1.02 of the time of its bare loop",
            ratios={"Trainer": 1.5, "bare loop": 1 / 1.02},
        ),
        ours=Side("Weightworks", ours, ("transformers",)),
        peers=[
            Side("Trainer", trainer, ("transformers", "accelerate"), is_peer=True),
            Side("bare loop", bare_loop, ("transformers",)),
        ],
        size="steps",
        sizes=[10, 40],
        full_sizes=[40, 300],
    )
]
