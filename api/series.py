"""A job's metrics as series over the steps: gathered from its events, thinned, written as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

Points = list[tuple[int, float]]


def gather(measured: Iterable[Mapping[str, Any]], *, names: set[str] | None, since_step: int) -> dict[str, Points]:
    """Series by name, from the step `since_step` on.

    What an attempt measured behind the checkpoint that the next one went on from is left out: the next one's count.
    """
    series: dict[str, dict[int, float]] = {}
    for data in measured:
        step = data["step"]
        for name, value in data["values"].items():
            if names is not None and name not in names:
                continue
            points = series.setdefault(name, {})
            while points and next(reversed(points)) > step:
                points.popitem()
            points[step] = value
    return {name: [point for point in points.items() if point[0] >= since_step] for name, points in series.items()}


def thinned(points: Points, most: int) -> Points:
    """At most `most` points: the first, the last, and the smallest and largest of equal stretches between."""
    if len(points) <= most:
        return points
    inner = points[1:-1]
    stretches = (most - 2) // 2
    kept = [points[0]]
    for index in range(stretches):
        stretch = inner[len(inner) * index // stretches : len(inner) * (index + 1) // stretches]
        kept += sorted({min(stretch, key=_value), max(stretch, key=_value)})
    return [*kept, points[-1]]


def _value(point: tuple[int, float]) -> float:
    return point[1]


def as_csv(series: Mapping[str, Points]) -> str:
    """One row a step, one column a metric, nothing where a metric was not measured."""
    rows: dict[int, dict[str, float]] = {}
    for name, points in series.items():
        for step, value in points:
            rows.setdefault(step, {})[name] = value
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *series])
    writer.writerows([step, *(rows[step].get(name, "") for name in series)] for step in sorted(rows))
    return text.getvalue()
