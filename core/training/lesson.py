"""What a training loop needs to know of what is learned: a network, batches, a loss, an evaluation, the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from core.training.run import Run


class Lesson(Protocol):
    """A network that learns one thing from one data set."""

    network: nn.Module

    @property
    def examples(self) -> int:
        """How many there are to learn from."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Any:
        """The training examples `rows`, on the CPU, augmented by draws of `generator`, or what the network makes of
        them now; what `parts` can cut.
        """

    def loss_of(self, part: Any) -> torch.Tensor:
        """The summed loss of a part of a batch, 0-d, on the network's device."""

    def over(self, batch: Any) -> float:
        """How many losses the parts of this batch sum up together: examples, or tokens."""

    def evaluate(self) -> Mapping[str, float] | None:
        """`loss` and other metrics on what was held out, in evaluation mode; None where nothing was."""

    def write_results(self) -> Mapping[str, float]:
        """Write the network and all that reads it into the run's artifacts; answers the last metrics."""


def valid_metrics(lesson: Lesson) -> dict[str, float]:
    """What `evaluate` finds, as it is called among a job's metrics: `valid_...`; nothing where nothing was held out."""
    return {f"valid_{name}": value for name, value in (lesson.evaluate() or {}).items()}


def report_base(lesson: Lesson, run: Run) -> None:
    """Before the first step, report what the network does by itself: what it then learns is seen beside it."""
    if run.step == 0 and (found := valid_metrics(lesson)):
        run.report(**found)
