"""How a self-organizing map anneals: from how many examples each epoch learns, and how far units learn together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi
from typing import Any, Literal, NamedTuple

import torch

Schedule = Literal["exponential", "linear", "cosine"]

ROWS_A_UNIT = 8  # that an epoch learns from, for each unit and square radius
WATCHED_RADIUS = 2.0  # a wider one keeps a map together
FEWEST_ROWS_A_UNIT, FEWEST_ROWS = 2, 1024
FIRST_STEP, LARGEST_STEP = 0.1, 0.2
TIMES_SHOWN = 3


def falling(first: float, last: float, *, epochs: int, schedule: Schedule) -> list[float]:
    """The radius of each epoch."""
    radii = []
    for epoch in range(epochs):
        done = epoch / (epochs - 1)
        if schedule == "exponential":
            radii.append(first * (last / first) ** done)
        else:
            left = 1 - done if schedule == "linear" else (1 + cos(pi * done)) / 2
            radii.append(last + (first - last) * left)
    return radii


class Part(NamedTuple):
    """What a step learns from: rows of the training examples, in an epoch with this scheduled radius."""

    radius: float
    rows: slice
    is_epoch_end: bool
    is_shown: bool


def plan(radii: Sequence[float], *, examples: int, units: int, most_rows: int, is_sampled: bool) -> list[Part]:
    """All steps, of `most_rows` rows at most.

    A map smoothed over a wide radius has few degrees of freedom, and needs few examples: an epoch's are so many for
    each of these, the next ones in turn. The last epoch's are all.
    """
    parts, place = [], 0
    for epoch, radius in enumerate(radii):
        is_last = epoch == len(radii) - 1
        freedom = max(1.0, units / radius**2)
        count = int(max(ROWS_A_UNIT * freedom, FEWEST_ROWS, FEWEST_ROWS_A_UNIT * units))
        count = min(examples, count) if is_sampled and not is_last else examples
        place = place if place + count <= examples else 0
        is_shown = is_last or (epoch + 1) % -(-len(radii) // TIMES_SHOWN) == 0
        for first in range(place, place + count, most_rows):
            rows = slice(first, min(first + most_rows, place + count))
            is_end = rows.stop == place + count
            parts.append(Part(radius, rows, is_end, is_end and is_shown))
        place += count
    return parts


class Radius:
    """The radius: as scheduled until the map tears, from then on wider after a map that is torn, else narrower.

    Its steps grow while they go one way, and halve when they turn (as in Rprop: Riedmiller & Braun 1993). Remembers the
    units of the least quantization error whose topographic error was within the limit.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.now: float | None = None
        self.step: float | None = None  # none until the map first tears
        self.was_torn = False
        self.best_units: torch.Tensor | None = None
        self.best_error: float | None = None

    def follow(
        self, scheduled: float, measured: Mapping[str, float], units: torch.Tensor, *, doubt: float = 0.0
    ) -> float:
        """The next radius; `units` came of the last one, and have the errors `measured`.

        `doubt`: by how much the topographic error may be higher, because it was measured on a sample.
        """
        if self.limit is None or self.now is None or scheduled > WATCHED_RADIUS:
            self.now = scheduled
            return self.now
        is_torn = measured["topographic_error"] + doubt > self.limit
        if not is_torn and (self.best_error is None or measured["quantization_error"] < self.best_error):
            self.best_error, self.best_units = measured["quantization_error"], units.clone()
        if self.step is not None:
            self.step = self.step / 2 if is_torn != self.was_torn else min(LARGEST_STEP, self.step * 1.2)
        elif is_torn:
            self.step = FIRST_STEP
        self.was_torn = is_torn
        if self.step is None:
            self.now = scheduled
        else:
            wider = min(WATCHED_RADIUS, self.now * (1 + self.step))
            self.now = max(scheduled, wider if is_torn else self.now / (1 + self.step))
        return self.now

    def better_units(self, measured: Mapping[str, float]) -> torch.Tensor | None:
        """The units remembered, if they are better than those with these errors."""
        if self.limit is None or self.best_error is None:
            return None
        is_torn = measured["topographic_error"] > self.limit
        return self.best_units if is_torn or self.best_error < measured["quantization_error"] else None

    def state_dict(self) -> dict[str, Any]:
        """Everything found out."""
        return dict(vars(self))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        vars(self).update(state_dict)
