"""The live picture of running jobs: a bar, the latest numbers and a curve for each, from their events."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from weightworks.client import Client
from weightworks.display import COLOURS, duration, number, spark
from weightworks.errors import WeightworksError
from weightworks.events import Event
from weightworks.jobs import Job

LOOK_SECONDS = 0.5
FRAMES_PER_SECOND = 8
TELLING = ("loss", "accuracy", "agreement")  # what metrics' names end with that say most in little room
CURVE_WIDTH = 12


@dataclass
class Watched:
    """What is known of one job."""

    label: str
    job: Job
    series: dict[str, list[float]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Learn from an event."""
        if event.type == "metrics":
            for name, value in event.data.get("values", {}).items():
                self.series.setdefault(name, []).append(value)
        elif event.type == "message" or event.level != "info":
            self.said.append(event.message)

    @property
    def fraction(self) -> float:
        """How much of the training is done."""
        if self.job.status == "succeeded":
            return 1.0
        return float((self.job.progress or {}).get("fraction") or 0.0)

    @property
    def seconds(self) -> float:
        """For how long it has trained."""
        if self.job.started_at is None:
            return 0.0
        return (self.job.finished_at or time.time()) - self.job.started_at


def watch(client: Client, jobs: Mapping[str, Job], *, console: Console) -> dict[str, Job]:
    """Show jobs, by their labels, until all are over; answers how they ended.

    On a terminal the picture moves; elsewhere each job's end is a line.
    """
    watched = {label: Watched(label, job) for label, job in jobs.items()}
    listeners = [threading.Thread(target=_listen, args=(client, one), daemon=True) for one in watched.values()]
    for listener in listeners:
        listener.start()
    with Live(console=console, refresh_per_second=FRAMES_PER_SECOND, auto_refresh=False) as live:
        while True:
            for one in watched.values():
                if not one.job.is_over:
                    one.job = client.jobs.get(one.job.id)
            is_over = all(one.job.is_over for one in watched.values())
            if is_over:
                for listener in listeners:
                    listener.join(timeout=5)  # the last numbers
            if is_over or console.is_terminal:
                live.update(picture(list(watched.values())), refresh=True)
            if is_over:
                if not console.is_terminal:
                    live.stop()
                    console.print()
                return {label: one.job for label, one in watched.items()}
            time.sleep(LOOK_SECONDS)


def _listen(client: Client, one: Watched) -> None:
    try:
        for event in client.jobs.events(one.job.id):
            one.take(event)
    except (WeightworksError, RuntimeError):  # httpx: the client was closed meanwhile
        return  # whoever watches sees what is wrong from the job itself


def picture(jobs: Sequence[Watched]) -> Table:
    """A line for each job."""
    table = Table.grid(padding=(0, 2))
    for width in (8, 9, 10, 12, 5, 10, 10):
        table.add_column(no_wrap=True, min_width=width)
    for one in jobs:
        bar = ProgressBar(total=1.0, completed=one.fraction, width=10)
        status = Text(one.job.status, style=COLOURS.get(one.job.status, "white"))
        table.add_row(one.label, status, bar, _steps(one), duration(one.seconds), _curve(one), _numbers(one))
    return table


def _steps(one: Watched) -> str:
    progress = one.job.progress or {}
    step, total = progress.get("step"), progress.get("total")
    return f"{step:,}/{total:,}" if step is not None and total else ""


def _numbers(one: Watched) -> str:
    latest = one.job.metrics or {name: values[-1] for name, values in one.series.items()}
    telling = (next((name for name in latest if name.endswith(end)), None) for end in TELLING)
    return "  ".join(f"{name.removeprefix('train_')} {number(latest[name])}" for name in telling if name is not None)


def _curve(one: Watched) -> Text:
    name = next((name for name, values in one.series.items() if name.endswith("loss") and len(values) > 1), None)
    return Text(spark(one.series[name], CURVE_WIDTH), style="cyan") if name else Text("")
