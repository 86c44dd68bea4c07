"""`make faults`: the whole matrix, several times on each database, as a table; exit status 1 unless it is all zeros."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.invariants import KINDS, Violation
from tests.faults.matrix import all_faults
from tests.faults.stack import Stack
from tests.faults.trials import Fault, run_faults

DATABASES = ("sqlite", "postgresql")
SHOWN = 40

console = Console(width=None if Console().is_terminal else 150)


def main() -> int:
    """Run the matrix as the command line says; answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each fault is made on each database")
    parser.add_argument("--database", action="append", choices=DATABASES, help="only on this one")
    parser.add_argument("--only", default="", help="only faults whose name holds this text")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every stack is closed
    faults = [fault for fault in all_faults() if options.only in fault.id]
    found: dict[str, list[Violation]] = {fault.id: [] for fault in faults}
    runs: Counter[str] = Counter()
    for kind in options.database or DATABASES:
        for name, violations in run_on(kind, faults, runs=options.runs):
            found[name] += violations
            runs[name] += 1
    console.print(as_table(faults, runs, found))
    worst = [violation for violations in found.values() for violation in violations]
    for violation in worst[:SHOWN]:
        console.print(f"[red]{violation.kind}[/red] {violation.what}", highlight=False)
    return 1 if worst else 0


def run_on(kind: str, faults: Sequence[Fault], *, runs: int) -> list[tuple[str, list[Violation]]]:
    """Each fault so many times on one database: its name, and what was found."""
    results = []
    with tempfile.TemporaryDirectory(prefix="ww-faults-") as folder:
        stack = Stack(Path(folder), kind)
        try:
            stack.start()
            for run in range(1, runs + 1):
                console.print(f"{kind}: run {run} of {runs}, {len(faults)} faults")
                results += run_faults(faults, stack).items()
            for name, reason in stack.skipped.items():
                console.print(f"[red]NOT MADE[/red] {name}: {reason}", highlight=False)
        finally:
            stack.close()
    return results


def as_table(faults: Sequence[Fault], runs: Mapping[str, int], found: Mapping[str, Sequence[Violation]]) -> Table:
    """A line for each fault, a column for each kind of violation."""
    table = Table("row", "fault", *(["runs", *KINDS]), title="What each fault broke, on all databases together")
    table.columns[1].no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for fault in faults:
        counts = Counter(violation.kind for violation in found[fault.id])
        numbers = [f"[red]{counts[kind]}[/red]" if counts[kind] else "0" for kind in KINDS]
        table.add_row(str(fault.row), fault.name, str(runs[fault.id]), *numbers)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
