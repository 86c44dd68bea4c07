"""Which server to talk to, and with which key: arguments, then the environment, then what `weightworks up` wrote."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from weightworks.errors import NotConnected

FILE_NAME = "connection.json"


@dataclass(frozen=True)
class Connection:
    """A server's address and a key for it."""

    base_url: str
    api_key: str | None = field(repr=False)


def home_folder(home: str | Path | None = None) -> Path:
    """Where `weightworks up` keeps its data: the argument, WEIGHTWORKS_HOME, or ~/.weightworks."""
    chosen = home or os.environ.get("WEIGHTWORKS_HOME") or "~/.weightworks"
    return Path(chosen).expanduser().absolute()


def find_connection(
    base_url: str | None = None, api_key: str | None = None, home: str | Path | None = None
) -> Connection:
    """The server to talk to. Raises NotConnected if none is named and none was started here."""
    base_url = base_url or (None if home else os.environ.get("WEIGHTWORKS_BASE_URL"))
    api_key = api_key or (None if home else os.environ.get("WEIGHTWORKS_API_KEY"))
    if base_url is None:
        found = read_connection(home_folder(home))
        base_url, api_key = found.base_url, api_key or found.api_key
    return Connection(base_url.rstrip("/").removesuffix("/v1"), api_key)


def read_connection(home: Path) -> Connection:
    """What `weightworks up` wrote into its home when it was ready."""
    path = home / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Connection(found["base_url"], found["api_key"])
    except FileNotFoundError:
        raise NotConnected(
            f"no server is known: run `weightworks up`, or set WEIGHTWORKS_BASE_URL and WEIGHTWORKS_API_KEY"
            f" (there is no {path})"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotConnected(f"{path} cannot be read: {error}") from None


def write_connection(home: Path, connection: Connection) -> None:
    """Say where the server is, for this user's eyes only; whole or not at all."""
    text = json.dumps({"base_url": connection.base_url, "api_key": connection.api_key}, indent=2) + "\n"
    write_private(home / FILE_NAME, text)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 in one step."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
