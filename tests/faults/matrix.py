"""The whole matrix: importing this registers every fault."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.faults.trials import FAULTS, Fault

ROWS = Path(__file__).with_name("rows")


def all_faults() -> list[Fault]:
    """Every fault of every row, in the order of the table."""
    for path in sorted(ROWS.glob("row_*.py")):
        importlib.import_module(f"tests.faults.rows.{path.stem}")
    return sorted(FAULTS, key=lambda fault: fault.row)
