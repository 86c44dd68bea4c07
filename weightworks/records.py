"""What the API answers, as frozen dataclasses: the fields by name, and all of the answer as `raw`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")


def read(kind: type[T], data: Mapping[str, Any]) -> T:
    """A record of this kind; what it has no field for, or a newer server adds, is in `raw` only."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in data.items() if name in known}, raw=dict(data))  # type: ignore[call-arg]
