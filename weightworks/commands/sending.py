"""Data, models and specs sent to the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from weightworks import display
from weightworks.client import Client
from weightworks.commands.jobs import COLUMNS, follow, row_of
from weightworks.commands.running import Json, client, told_errors
from weightworks.display import console
from weightworks.errors import WeightworksError
from weightworks.files import DATA_SET, MODEL, File
from weightworks.specs import Upload, read_settings, read_spec, with_uploads


def upload(
    context: typer.Context,
    file: Path,
    is_model: Annotated[bool, typer.Option("--model", help="It is an archive that holds a model.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a data set, or an archive that holds a model."""
    with client(context) as ours:
        found = _upload(ours, file, is_model=is_model)
        if as_json:
            return display.show_json(found.raw)
        profile = found.profile or {}
        known = ", ".join(f"{name} {value}" for name, value in profile.items() if isinstance(value, str | int))
        return console.print(f"{found.id}  {escape(found.filename)}, {display.size(found.bytes)}. {escape(known)}")


def submit(
    context: typer.Context,
    spec: Annotated[list[str] | None, typer.Argument(metavar="[SPEC.json] [KEY=VALUE]...")] = None,
    method: Annotated[str | None, typer.Option(help="How to train; see `weightworks methods`.")] = None,
    dataset: Annotated[str | None, typer.Option(help="The data set: a file here, or an uploaded file's id.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only say what would be done.")] = False,
    should_watch: Annotated[bool, typer.Option("--watch", help="Watch the job until it is over.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a job: a spec in a file, settings as key=value, or both. Local files are uploaded."""
    with client(context) as ours:
        whole = with_uploads(ours, _spec(spec or [], method=method, dataset=dataset), _uploader(ours))
        if preview:
            return display.show_json(ours.jobs.preview(whole))
        job = ours.jobs.create(whole)
        if should_watch and not as_json:
            return follow(ours, {job.label: job})
        if as_json:
            return display.show_json(job.raw)
        return console.print(f"{job.id}  {display.status(job.status)}; weightworks watch {job.id}")


def pipeline(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(metavar="SPEC.json")],
    should_watch: Annotated[bool, typer.Option("--watch", help="Watch the jobs until all are over.")] = False,
    as_json: Json = False,
) -> None:
    """Submit several jobs at once, one taking another's weights: {"jobs": {"teacher": {...}, "student": {...}}}."""
    with told_errors():
        whole = read_spec(spec)
    with client(context) as ours:
        jobs = {step: with_uploads(ours, job, _uploader(ours)) for step, job in whole.get("jobs", {}).items()}
        made = ours.pipelines.create({**whole, "jobs": jobs})
        if as_json:
            return display.show_json(made.raw)
        if should_watch:
            return follow(ours, made.jobs)
        console.print(made.id)
        rows = [(step, *row_of(job)) for step, job in made.jobs.items()]
        return display.show_table(("step", *COLUMNS), rows, empty="")


def _spec(given: list[str], *, method: str | None, dataset: str | None) -> dict[str, Any]:
    """The spec of the file, if one is given, with what is said beside it laid over it."""
    files = [one for one in given if "=" not in one]
    if len(files) > 1:
        raise typer.BadParameter(f"one spec at a time: {', '.join(files)}")
    spec = read_spec(Path(files[0])) if files else {}
    named = {"method": method, "dataset": dataset}
    return {
        **spec,
        **{name: value for name, value in named.items() if value is not None},
        **read_settings(one for one in given if "=" in one),
    }


def _uploader(ours: Client) -> Upload:
    """Uploads a path once, however often a spec names it."""
    known: dict[Path, str] = {}

    def upload(path: Path, *, is_model: bool) -> str:
        if path not in known:
            known[path] = _upload(ours, path, is_model=is_model).id
        return known[path]

    return upload


def _upload(ours: Client, path: Path, *, is_model: bool) -> File:
    try:
        total = path.stat().st_size
    except OSError as error:
        raise WeightworksError(f"{path} cannot be read: {error.strerror}") from None
    with display.transfer(path.name, total=total) as tell:
        return ours.files.upload(path, purpose=MODEL if is_model else DATA_SET, on_bytes=tell)
