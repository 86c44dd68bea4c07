"""What jobs made: downloaded, or deleted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from weightworks import display
from weightworks.client import Client
from weightworks.commands.running import JobId, Json, client
from weightworks.display import console
from weightworks.jobs import Part


def download(
    context: typer.Context,
    job: JobId,
    to: Annotated[Path | None, typer.Option(help="The folder to put the files into [the job's id].")] = None,
    part: Annotated[Part, typer.Option(help="The peft folder alone (adapter), or all but that (merged).")] = "all",
    as_json: Json = False,
) -> None:
    """Download what a job made; every file is checked, and a download that was cut is gone on with."""
    folder = to or Path(job)
    with client(context) as ours:
        total = sum(one.bytes for one in ours.jobs.artifacts(job, part=part))
        with display.transfer(f"{job} to {folder}", total=total) as tell:
            paths = ours.jobs.download(job, folder, part=part, on_bytes=tell)
        if as_json:
            return display.show_json([str(path) for path in paths])
        return console.print(f"{len(paths)} files, {display.size(total)}, all as their SHA-256 says, in {folder}/")


def samples(
    context: typer.Context,
    job: JobId,
    to: Annotated[Path | None, typer.Option(help="The folder to put the files into [the job's id]-samples.")] = None,
    as_json: Json = False,
) -> None:
    """Download the pictures and texts by which a job shows what it learns, also while it runs."""
    folder = to or Path(f"{job}-samples")
    with client(context) as ours:
        paths = ours.jobs.download_samples(job, folder)
        if as_json:
            return display.show_json([str(path) for path in paths])
        for path in paths:
            console.print(str(path), soft_wrap=True)
        return None


def delete(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Of jobs, files or models.")],
    only_checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Of jobs, only the checkpoints.")] = False,
    as_json: Json = False,
) -> None:
    """Delete jobs with all they left, files, or models; what an unfinished job needs is refused."""
    with client(context) as ours:
        gone = []
        for one in ids:
            for name, remove in _removals(ours, one, only_checkpoints=only_checkpoints).items():
                remove()
                gone.append(name)
                if not as_json:
                    console.print(f"{name} is deleted")
        if as_json:
            display.show_json(gone)


def _removals(ours: Client, id: str, *, only_checkpoints: bool) -> dict[str, Callable[[], None]]:
    """How to delete what an id names, and how to delete a job's checkpoints, by what is named."""
    if only_checkpoints:
        found = ours.jobs.checkpoints(id)
        return {one.id: partial(ours.jobs.delete_checkpoint, id, one.id) for one in found}
    kinds = {"job": ours.jobs.delete, "file": ours.files.delete, "model": ours.models.delete}
    kind = id.partition("-")[0]
    if kind not in kinds:
        raise typer.BadParameter(f"'{id}' is the id of no job, file or model: theirs begin with {', '.join(kinds)}")
    return {id: partial(kinds[kind], id)}
