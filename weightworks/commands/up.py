"""Weightworks on this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from weightworks.commands.running import Home, told_errors
from weightworks.connection import home_folder
from weightworks.up import up as run_stack


def up(
    context: typer.Context,
    home: Home = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The API's port; 0: any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many jobs may run at once.")] = 1,
) -> None:
    """Run Weightworks on this machine until Ctrl-C: Redis, the API and a worker."""
    chosen = home_folder(home or context.obj["home"])
    with told_errors():
        sys.exit(run_stack(chosen, port=port, workers=workers, say=_say))


def _say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()
