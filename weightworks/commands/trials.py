"""Models tried out."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from weightworks import display
from weightworks.commands.running import Json, client
from weightworks.display import console


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
