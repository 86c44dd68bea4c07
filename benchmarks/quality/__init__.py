"""The figures that each method's page promises, measured: `python -m benchmarks.quality NAME`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number beside the one asked for."""

    what: str
    asked: str
    reached: str
    note: str = ""
