"""The workers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from weightworks import display
from weightworks.commands.running import Json, client
from weightworks.workers import Worker

COLUMNS = ("worker", "host", "device", "does", "since")


def workers(context: typer.Context, as_json: Json = False) -> None:
    """List the workers that run, and the job that each holds."""
    with client(context) as ours:
        found = list(ours.workers.list())
        if as_json:
            return display.show_json([one.raw for one in found])
        return display.show_table(COLUMNS, [_row(one) for one in found], empty="No worker runs.")


def drain(
    context: typer.Context,
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The worker's id; see `weightworks workers`.")],
    undo: Annotated[bool, typer.Option("--undo", help="Have it take jobs again.")] = False,
    as_json: Json = False,
) -> None:
    """Have a worker give its job back, with a checkpoint, and take no more."""
    with client(context) as ours:
        found = ours.workers.resume(worker) if undo else ours.workers.drain(worker)
        if as_json:
            return display.show_json(found.raw)
        return display.show_table(COLUMNS, [_row(found)], empty="")


def _row(worker: Worker) -> tuple[str, ...]:
    does = worker.job or ("a job of another project" if worker.is_busy else "")
    if worker.is_draining or worker.drain_requested:
        does = f"drains; {does}" if does else "takes no job"
    device = "GPU" if worker.has_gpu else "CPU"
    return (escape(worker.id), escape(worker.host), device, does or "waits for a job", display.when(worker.started_at))
