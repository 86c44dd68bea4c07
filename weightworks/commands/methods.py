"""The training methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.markup import escape

from weightworks import display
from weightworks.commands.running import Json, client
from weightworks.display import console


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


def _settings(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, one in schema.get("properties", {}).items():
        is_needed = name in schema.get("required", [])
        default = "needed" if is_needed else str(one.get("default", ""))
        yield name, escape(default), escape(one.get("description", ""))
