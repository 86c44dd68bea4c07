"""What precision `auto` picks on this machine's CPU, beside float32 and bfloat16 by name."""

from __future__ import annotations

from functools import partial

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.language_models import CONTEXT, held_out, train_here

METHOD = "masked_language_model"
BATCH = 8


def measure(steps: int, *, precision: str) -> Reading:
    """A masked language model as a job, in this precision."""
    watch, artifacts = train_here(METHOD, steps=steps, batch_size=BATCH, precision=precision)
    return watch.reading(steps * BATCH * CONTEXT, held_out_loss=held_out(METHOD, artifacts)["loss"])


BENCHMARKS = [
    Benchmark(
        name="precision-auto",
        what="A BERT of 4 layers, 128 wide, learns from books by precision auto, float32 and bfloat16; one thread.",
        unit="tokens/CPU s",
        more_is_better=True,
        goal=Goal("no slower than either", ratio=0.97),
        ours=Side("auto", partial(measure, precision="auto"), ("transformers",)),
        peers=[
            Side(precision, partial(measure, precision=precision), ("transformers",))
            for precision in ("float32", "bfloat16")
        ],
        size="steps",
        sizes=[30],
        full_sizes=[300],
    )
]
