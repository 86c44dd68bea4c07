"""Calls that read alike for both kinds of the Python client, the one that waits and the one that is awaited."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai


@dataclass(frozen=True)
class Place:
    """A server, what lies ready there for this program, and the client to be tried."""

    kind: str
    base_url: str
    lossy_url: str
    key: str
    reading_key: str
    narrow_key: str
    other_project: str
    base: Path
    waits_for: tuple[str, ...]
    client: Any

    def another(self, *, key: str | None = None, base_url: str | None = None, **options: Any) -> Any:
        """A client of the same kind."""
        return new_client(self.kind, base_url=base_url or self.base_url, key=key or self.key, **options)

    @property
    def name(self) -> str:
        """What tells this client's things from another's."""
        return f"{openai.__version__} {self.kind}"


def new_client(kind: str, *, base_url: str, key: str, **options: Any) -> Any:
    """The client as it is installed, told to hold every answer against its own types, unless the options say no."""
    made = openai.OpenAI if kind == "sync" else openai.AsyncOpenAI
    return made(base_url=base_url, api_key=key, **{"_strict_response_validation": True, **options})


def read_arguments() -> Place:
    """What the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("sync", "async"))
    parser.add_argument("--waits-for", action="append", default=[], choices=("supervised", "dpo", "reinforcement"))
    for name in ("base-url", "lossy-url", "key", "reading-key", "narrow-key", "other-project"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--base", type=Path, required=True)
    given = vars(parser.parse_args())
    client = new_client(given["kind"], base_url=given["base_url"], key=given["key"])
    return Place(**{**given, "waits_for": tuple(given["waits_for"])}, client=client)


async def answer(value: Any) -> Any:
    """The answer to a call, whether it is there already or has to be awaited."""
    return await value if inspect.isawaitable(value) else value


async def everything(items: Any) -> list[Any]:
    """All items of a stream, or of a list: the client asks for page after page."""
    if hasattr(items, "__aiter__"):
        return [item async for item in items]
    return list(items)


async def refused(call: Any, error: type[openai.APIStatusError]) -> Any:
    """The error that a call must end with, exactly this one."""
    try:
        await answer(call())
    except error as found:
        if type(found) is not error:
            raise
        return found
    raise AssertionError(f"no {error.__name__}")


def saw(call: str, **what: Any) -> None:
    """Print a call, and what came of it."""
    sys.stdout.write(json.dumps({"call": call, **what}, default=str) + "\n")
    sys.stdout.flush()
