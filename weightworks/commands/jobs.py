"""Jobs: watched, listed, stopped, and gone on with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from weightworks import display
from weightworks.client import Client
from weightworks.commands.running import NOT_SUCCEEDED, JobId, Json, client
from weightworks.display import console, errors
from weightworks.jobs import Job
from weightworks.watching import watch as watch_jobs

COLUMNS = ("job", "name", "status", "done", "created", "metrics")


def watch(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Watch a job live, until it is over. With --json: every event, one a line."""
    with client(context) as ours:
        if not as_json:
            found = ours.jobs.get(job)
            return follow(ours, {found.label: found})
        for event in ours.jobs.events(job):
            display.show_json_line(asdict(event))
        return _end({job: ours.jobs.get(job)})


def jobs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    method: Annotated[str | None, typer.Option(help="Only jobs of this method.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    with client(context) as ours:
        found = [job for job, _ in zip(ours.jobs.list(status=status, method=method), range(limit), strict=False)]
        if as_json:
            return display.show_json([job.raw for job in found])
        return display.show_table(COLUMNS, [row_of(job) for job in found], empty="There are no jobs.")


def job(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Show a job."""
    with client(context) as ours:
        found = ours.jobs.get(job)
        if as_json:
            return display.show_json(found.raw)
        display.show_table(COLUMNS, [row_of(found)], empty="")
        if found.waiting:
            console.print(f"It {escape(found.waiting['reason'])}.")
        if found.error:
            console.print(f"[red]{escape(str(found.error.get('message')))}[/]")
        return display.show_json(found.spec)


def cancel(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Stop a job; what it has learned until then can be downloaded."""
    with client(context) as ours:
        _show(ours.jobs.cancel(job), as_json=as_json)


def pause(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Leave a job off, with a checkpoint; it waits for `weightworks resume`."""
    with client(context) as ours:
        _show(ours.jobs.pause(job), as_json=as_json)


def resume(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Go on with a paused job, from its last checkpoint."""
    with client(context) as ours:
        _show(ours.jobs.resume(job), as_json=as_json)


def retry(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Queue a failed or cancelled job again, from its last checkpoint."""
    with client(context) as ours:
        _show(ours.jobs.retry(job), as_json=as_json)


def logs(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Print what the trainer itself printed."""
    with client(context) as ours:
        for line in ours.jobs.logs(job):
            if as_json:
                display.show_json_line(line)
            else:
                typer.echo(line["line"])


def _show(job: Job, *, as_json: bool) -> None:
    if as_json:
        display.show_json(job.raw)
    else:
        display.show_table(COLUMNS, [row_of(job)], empty="")


def row_of(job: Job) -> tuple[str, ...]:
    """A job as a row of COLUMNS."""
    fraction = 1.0 if job.status == "succeeded" else (job.progress or {}).get("fraction") or 0.0
    name = escape(job.label)
    return (
        job.id,
        name,
        display.status(job.status),
        f"{fraction:.0%}",
        display.when(job.created_at),
        _brief(job.metrics),
    )


def _brief(values: dict[str, float]) -> str:
    return display.metrics(dict(list(values.items())[:3]))


def follow(ours: Client, jobs: dict[str, Job]) -> None:
    """Watch jobs, by their labels, until all are over; leaves with its own exit status if one did not succeed."""
    ended = watch_jobs(ours, jobs, console=console)
    for label, one in ended.items():
        if one.error:
            errors.print(f"{escape(label)}: {escape(str(one.error.get('message')))}")
        else:
            console.print(f"weightworks download {one.id}")
    _end(ended)


def _end(jobs: dict[str, Job]) -> None:
    if any(job.status != "succeeded" for job in jobs.values()):
        raise typer.Exit(NOT_SUCCEEDED)
