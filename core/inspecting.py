"""Reads and grades what strangers sent in processes of their own: `python -m core.inspecting DESCRIPTOR`.

See core/forking.py.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from core.data.model_archive import inspect_model_archive
from core.data.profile import inspect
from core.forking import Order, serve
from core.graders import Grader, grade


def _warm_up() -> None:
    import core.data.inspection  # noqa: F401  ahead of time


def _answer(order: Order) -> dict[str, Any] | None:
    """The grade of a `text` by a `grader`; or the profile of the data set at `path`, None of a base model."""
    if "grader" in order:
        grader: Any = TypeAdapter(Grader).validate_python(order["grader"])
        return asdict(grade(grader, order["item"], order["text"]))
    path, limit = Path(order["path"]), order["max_unpacked_bytes"]
    warnings.simplefilter("ignore")  # Pillow and NumPy warn of what they mend
    if order["is_model"]:
        inspect_model_archive(path, max_unpacked_bytes=limit)
        return None
    return inspect(path, max_unpacked_bytes=limit).as_dict()


if __name__ == "__main__":
    serve(int(sys.argv[1]), _answer, warm_up=_warm_up)
