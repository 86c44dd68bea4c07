"""The `weightworks` command. Exit status: 0 done, 1 refused, 2 wrong usage, 3 no server, 4 the job did not succeed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from weightworks import display
from weightworks.client import Client
from weightworks.connection import home_folder
from weightworks.display import console, errors
from weightworks.errors import CannotStart, NotConnected, RequestRefused, WeightworksError
from weightworks.files import DATA_SET, MODEL, File
from weightworks.jobs import Job, Part
from weightworks.specs import Upload, read_settings, read_spec, with_uploads
from weightworks.up import up as run_stack
from weightworks.watching import watch as watch_jobs
from weightworks.workers import Worker

REFUSED, NO_SERVER, NOT_SUCCEEDED = 1, 3, 4
SHOWN_PROBLEMS = 20

app = typer.Typer(
    help="Send data and a job spec, watch it train, take the weights home.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for machines.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Home = Annotated[Path | None, typer.Option(help="Where `weightworks up` keeps its data [~/.weightworks].")]


@app.callback()
def connect(
    context: typer.Context,
    home: Home = None,
    base_url: Annotated[str | None, typer.Option(help="The server [WEIGHTWORKS_BASE_URL, or the home's].")] = None,
    api_key: Annotated[str | None, typer.Option(help="The key [WEIGHTWORKS_API_KEY, or the home's].")] = None,
) -> None:
    """Send data and a job spec, watch it train, take the weights home."""
    context.obj = {"base_url": base_url, "api_key": api_key, "home": home}


@app.command()
def up(
    context: typer.Context,
    home: Home = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The API's port; 0: any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many jobs may run at once.")] = 1,
) -> None:
    """Run Weightworks on this machine until Ctrl-C: Redis, the API and a worker."""
    chosen = home_folder(home or context.obj["home"])
    with told_errors():
        sys.exit(run_stack(chosen, port=port, workers=workers, say=say))


@app.command()
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


@app.command()
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
            return _watch(ours, {job.label: job})
        if as_json:
            return display.show_json(job.raw)
        return console.print(f"{job.id}  {display.status(job.status)}; weightworks watch {job.id}")


@app.command()
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
            return _watch(ours, made.jobs)
        console.print(made.id)
        return display.show_table(("step", *COLUMNS), [(step, *_row(job)) for step, job in made.jobs.items()], empty="")


@app.command()
def watch(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Watch a job live, until it is over. With --json: every event, one a line."""
    with client(context) as ours:
        if not as_json:
            found = ours.jobs.get(job)
            return _watch(ours, {found.label: found})
        for event in ours.jobs.events(job):
            display.show_json_line(asdict(event))
        return _end({job: ours.jobs.get(job)})


@app.command()
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
        return display.show_table(COLUMNS, [_row(job) for job in found], empty="There are no jobs.")


@app.command()
def job(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Show a job."""
    with client(context) as ours:
        found = ours.jobs.get(job)
        if as_json:
            return display.show_json(found.raw)
        display.show_table(COLUMNS, [_row(found)], empty="")
        if found.waiting:
            console.print(f"It {escape(found.waiting['reason'])}.")
        if found.error:
            console.print(f"[red]{escape(str(found.error.get('message')))}[/]")
        return display.show_json(found.spec)


@app.command()
def cancel(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Stop a job; what it has learned until then can be downloaded."""
    with client(context) as ours:
        _show(ours.jobs.cancel(job), as_json=as_json)


@app.command()
def pause(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Leave a job off, with a checkpoint; it waits for `weightworks resume`."""
    with client(context) as ours:
        _show(ours.jobs.pause(job), as_json=as_json)


@app.command()
def resume(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Go on with a paused job, from its last checkpoint."""
    with client(context) as ours:
        _show(ours.jobs.resume(job), as_json=as_json)


@app.command()
def retry(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Queue a failed or cancelled job again, from its last checkpoint."""
    with client(context) as ours:
        _show(ours.jobs.retry(job), as_json=as_json)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def methods(
    context: typer.Context, name: Annotated[str | None, typer.Argument()] = None, as_json: Json = False
) -> None:
    """List the methods, or show one with its settings."""
    with client(context) as ours:
        if name is None:
            found = ours.methods.list()
            if as_json:
                return display.show_json([one.raw for one in found])
            return display.show_table(("method", "what it does"), [(one.id, one.summary) for one in found], empty="")
        one = ours.methods.get(name)
        if as_json:
            return display.show_json(one.raw)
        console.print(f"[bold]{one.id}[/]  {escape(one.summary)}\n{escape(one.paper)}\nReads: {', '.join(one.reads)}")
        return display.show_table(("setting", "default", "meaning"), _settings(one.spec_schema), empty="")


@app.command()
def workers(context: typer.Context, as_json: Json = False) -> None:
    """List the workers that run, and the job that each holds."""
    with client(context) as ours:
        found = list(ours.workers.list())
        if as_json:
            return display.show_json([one.raw for one in found])
        return display.show_table(WORKER_COLUMNS, [_worker_row(one) for one in found], empty="No worker runs.")


@app.command()
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
        return display.show_table(WORKER_COLUMNS, [_worker_row(found)], empty="")


@app.command()
def logs(context: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Print what the trainer itself printed."""
    with client(context) as ours:
        for line in ours.jobs.logs(job):
            if as_json:
                display.show_json_line(line)
            else:
                typer.echo(line["line"])


@app.command()
def chat(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model's id, its ft: name, or what its file is called.")],
    prompt: Annotated[str | None, typer.Argument(help="What to ask; none: a conversation, a line at a time.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: always the likeliest token.")] = 0.0,
) -> None:
    """Ask a model, and read its answer as it writes."""
    messages = [{"role": "system", "content": system}] if system else []
    with client(context) as ours:
        for line in [prompt] if prompt is not None else sys.stdin:
            messages.append({"role": "user", "content": line.rstrip("\n")})
            answer = ""
            for piece in ours.trials.chat(model, messages, max_tokens=max_tokens, temperature=temperature):
                answer += piece
                typer.echo(piece, nl=False)
                sys.stdout.flush()
            typer.echo()
            messages.append({"role": "assistant", "content": answer})


@app.command()
def compare(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(help="Models; one alone is compared with the base of its tuning.")],
    prompt: Annotated[str, typer.Option(help="What to ask all of them.")],
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    as_json: Json = False,
) -> None:
    """Ask several models the same, greedily, and show their answers one below the other."""
    with client(context) as ours:
        messages = [{"role": "user", "content": prompt}]
        answers = ours.trials.compare(models, messages=messages, max_tokens=max_tokens)
    if as_json:
        display.show_json([answer.raw for answer in answers])
        return
    for answer in answers:
        console.print(f"[bold]{escape(answer.model)}[/]")
        typer.echo(f"{answer.text}\n")


COLUMNS = ("job", "name", "status", "done", "created", "metrics")


def _row(job: Job) -> tuple[str, ...]:
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


WORKER_COLUMNS = ("worker", "host", "device", "does", "since")


def _worker_row(worker: Worker) -> tuple[str, ...]:
    does = worker.job or ("a job of another project" if worker.is_busy else "")
    if worker.is_draining or worker.drain_requested:
        does = f"drains; {does}" if does else "takes no job"
    device = "GPU" if worker.has_gpu else "CPU"
    return (escape(worker.id), escape(worker.host), device, does or "waits for a job", display.when(worker.started_at))


def _brief(values: dict[str, float]) -> str:
    return display.metrics(dict(list(values.items())[:3]))


def _settings(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, one in schema.get("properties", {}).items():
        is_needed = name in schema.get("required", [])
        default = "needed" if is_needed else str(one.get("default", ""))
        yield name, escape(default), escape(one.get("description", ""))


def _show(job: Job, *, as_json: bool) -> None:
    if as_json:
        display.show_json(job.raw)
    else:
        display.show_table(COLUMNS, [_row(job)], empty="")


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


def _watch(ours: Client, jobs: dict[str, Job]) -> None:
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


def say(text: str) -> None:
    """Print a line, at once."""
    typer.echo(text)
    sys.stdout.flush()


@contextmanager
def client(context: typer.Context) -> Iterator[Client]:
    """A client of the chosen server; whatever goes wrong is told in a line."""
    with told_errors(), Client(**context.obj) as ours:
        yield ours


@contextmanager
def told_errors() -> Iterator[None]:
    """Tell an error in a line, and leave with its exit status."""
    try:
        yield
    except WeightworksError as error:
        errors.print(f"[red]error:[/] {escape(in_words(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(NO_SERVER if isinstance(error, NotConnected | CannotStart) else REFUSED) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def in_words(error: WeightworksError) -> str:
    """What was wrong: the field, unless the message begins with it, and each problem of a data set on its line."""
    if not isinstance(error, RequestRefused):
        return error.message
    problems = [f"\n  {one.get('where')}: {one.get('what')}" for one in error.problems]
    if len(problems) > 1:
        return f"{len(problems)} problems with {error.param}:" + "".join(problems[:SHOWN_PROBLEMS])
    starts_with_it = error.param is None or error.message.startswith(error.param)
    return error.message if starts_with_it else f"{error.param}: {error.message}"


if __name__ == "__main__":
    app()
