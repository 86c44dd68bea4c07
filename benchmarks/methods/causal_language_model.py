"""Causal language modelling beside transformers' Trainer, and beside a bare loop as people write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.language_models import (
    CONTEXT,
    held_out,
    opened,
    prepared,
    texts_of,
    train_bare,
    train_here,
    train_with_trainer,
)
from benchmarks.timed import Stopwatch

METHOD = "causal_language_model"
BATCH = 8


def ours(steps: int) -> Reading:
    """As a job; documents in a row do not see each other."""
    return _read(steps, *train_here(METHOD, steps=steps, batch_size=BATCH))


def trainer(steps: int) -> Reading:
    """transformers' Trainer on the same rows, in which documents see each other, as its example has it."""
    return _read(steps, *train_with_trainer(METHOD, steps=steps, batch_size=BATCH))


def bare_loop(steps: int) -> Reading:
    """The loss that the model answers by itself, of the same rows."""
    return _read(steps, *train_bare(METHOD, _loss, steps=steps, batch_size=BATCH))


def _loss(model: Any, rows: Any, chosen: Any, step: int) -> Any:
    tokens = rows[chosen].tokens
    return model.network(input_ids=tokens, labels=tokens, use_cache=False).loss


def _read(steps: int, watch: Stopwatch, artifacts: Path) -> Reading:
    rows = opened(METHOD, artifacts).rows(iter(texts_of(prepared(METHOD) / "learn.jsonl")))
    found = held_out(METHOD, artifacts)["loss"]
    return watch.reading(steps * BATCH * CONTEXT, held_out_loss=found, padding=rows.padding)


BENCHMARKS = [
    Benchmark(
        name="causal-language-model",
        what="A GPT-2 of 4 layers, 128 wide, 8,000 tokens, learns from books, on one thread; loss on what is held out.",
        unit="tokens/CPU s",
        more_is_better=True,
        goal=Goal("ahead of both at an equal loss; no padding", ratio=1.0, limits={"padding": 0.001}),
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
