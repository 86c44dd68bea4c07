"""The order of class names: numbers by size, within words too."""

from __future__ import annotations

import re
from typing import Any


def natural(name: str) -> tuple[Any, ...]:
    """The key that sorts numbers by size, within words too, and numbers before words."""
    if re.fullmatch(r"-?\d{1,99}", name):
        return (0, int(name), name)
    parts = re.split(r"(\d{1,99})", name.lower())
    return (1, tuple((int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)), name)
