"""How a command runs: its options, its client, and how it ends when something goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from weightworks.client import Client
from weightworks.display import errors
from weightworks.errors import CannotStart, NotConnected, RequestRefused, WeightworksError

REFUSED, NO_SERVER, NOT_SUCCEEDED = 1, 3, 4
SHOWN_PROBLEMS = 20

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for machines.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Home = Annotated[Path | None, typer.Option(help="Where `weightworks up` keeps its data [~/.weightworks].")]


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
