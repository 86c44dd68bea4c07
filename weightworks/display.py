"""What the command shows: tables, bars, sizes and times; or JSON, for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

COLOURS = {
    "queued": "yellow",
    "running": "cyan",
    "paused": "blue",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}
SPARKS = "▁▂▃▄▅▆▇█"

WIDE = 200

console = Console() if sys.stdout.isatty() else Console(width=WIDE)  # what is not a terminal need not be cut
errors = Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=WIDE)


def show_json(value: Any) -> None:
    """Print JSON, as it is."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show_json_line(value: Any) -> None:
    """Print JSON on a line of its own, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print a table, or `empty` where there is nothing to show."""
    found = list(rows)
    if not found:
        console.print(empty)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], no_wrap=True, overflow="fold")
    for column in columns[1:]:
        table.add_column(column)
    for row in found:
        table.add_row(*row)
    console.print(table)


@contextmanager
def transfer(label: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on the standard error stream while bytes come or go; gives the function to tell them to."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


def status(text: str) -> str:
    """A status in its colour."""
    return f"[{COLOURS.get(text, 'white')}]{text}[/]"


def number(value: float) -> str:
    """A measurement, short."""
    return f"{value:.4g}"


def metrics(values: dict[str, float]) -> str:
    """Measurements on one line."""
    return "  ".join(f"{name} {number(value)}" for name, value in values.items())


def when(seconds: float | None) -> str:
    """A time of day, with the day if it was another."""
    if not seconds:
        return ""
    moment = datetime.fromtimestamp(seconds)
    return moment.strftime("%H:%M:%S" if moment.date() == datetime.now().date() else "%Y-%m-%d %H:%M")


def size(count: float) -> str:
    """Bytes, short."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """A time span, short."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def spark(values: Sequence[float], width: int = 24) -> str:
    """A curve in a line of text."""
    if len(values) < 2:
        return ""
    step = max(1.0, len(values) / width)
    chosen = [values[int(index * step)] for index in range(min(width, len(values)))]
    low, high = min(chosen), max(chosen)
    span = (high - low) or 1.0
    return "".join(SPARKS[int((value - low) / span * (len(SPARKS) - 1))] for value in chosen)
