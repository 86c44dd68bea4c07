"""The `weightworks` command. Exit status: 0 done, 1 refused, 2 wrong usage, 3 no server, 4 the job did not succeed."""

from __future__ import annotations

from typing import Annotated

import typer

from weightworks.commands import jobs, methods, results, sending, trials, up, workers
from weightworks.commands.running import Home

app = typer.Typer(
    help="Send data and a job spec, watch it train, take the weights home.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def connect(
    context: typer.Context,
    home: Home = None,
    base_url: Annotated[str | None, typer.Option(help="The server [WEIGHTWORKS_BASE_URL, or the home's].")] = None,
    api_key: Annotated[str | None, typer.Option(help="The key [WEIGHTWORKS_API_KEY, or the home's].")] = None,
) -> None:
    """Send data and a job spec, watch it train, take the weights home."""
    context.obj = {"base_url": base_url, "api_key": api_key, "home": home}


for command in (
    up.up,
    sending.upload,
    sending.submit,
    sending.pipeline,
    jobs.watch,
    jobs.jobs,
    jobs.job,
    jobs.cancel,
    jobs.pause,
    jobs.resume,
    jobs.retry,
    results.delete,
    results.download,
    results.samples,
    methods.methods,
    workers.workers,
    workers.drain,
    jobs.logs,
    trials.chat,
    trials.compare,
):
    app.command()(command)

if __name__ == "__main__":
    app()
