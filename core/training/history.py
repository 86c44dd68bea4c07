"""The curves of a run, thinned so that a long run's fit into a checkpoint and onto a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_POINTS = 2000


class History:
    """Points (step, value) by metric name; every second point goes when a series grows past MAX_POINTS."""

    def __init__(self) -> None:
        self.series: dict[str, list[tuple[int, float]]] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of one step."""
        for name, value in values.items():
            points = self.series.setdefault(name, [])
            points.append((step, value))
            if len(points) > MAX_POINTS:
                del points[1:-1:2]

    def latest(self) -> dict[str, float]:
        """The last value of every metric."""
        return {name: points[-1][1] for name, points in self.series.items()}

    def state_dict(self) -> dict[str, Any]:
        """The series, as lists."""
        return {name: [list(point) for point in points] for name, points in self.series.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the series where a checkpoint left them."""
        self.series = {name: [(step, value) for step, value in points] for name, points in state_dict.items()}
