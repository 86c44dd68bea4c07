"""Masked language modelling beside transformers' Trainer."""

from __future__ import annotations

from benchmarks.quality import Figure
from benchmarks.quality.language_models import figures


def measure() -> list[Figure]:
    """Held-out loss, time and memory of both."""
    return figures("masked_language_model", goal="less time (at least 1.5)")
