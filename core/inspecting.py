"""Reads what strangers sent in processes of their own: `python -m core.inspecting DESCRIPTOR`; see core/forking.py."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from core.data.model_archive import inspect_model_archive
from core.data.profile import inspect
from core.forking import Order, serve


def _warm_up() -> None:
    import core.data.inspection  # noqa: F401  ahead of time


def _read(order: Order) -> dict[str, Any] | None:
    """The profile of the data set at `path`; None of a base model."""
    path, limit = Path(order["path"]), order["max_unpacked_bytes"]
    warnings.simplefilter("ignore")  # Pillow and NumPy warn of what they mend
    if order["is_model"]:
        inspect_model_archive(path, max_unpacked_bytes=limit)
        return None
    return inspect(path, max_unpacked_bytes=limit).as_dict()


if __name__ == "__main__":
    serve(int(sys.argv[1]), _read, warm_up=_warm_up)
