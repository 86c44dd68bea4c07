"""Numbers as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers as JSON has them: null for what is infinite or not a number."""
    return {name: finite_value(value) for name, value in metrics.items()}


def finite_value(value: float) -> float | None:
    """The number, or None for what JSON has no number for."""
    return value if math.isfinite(value) else None
