"""A file that has come whole, at once or in parts: checked, put into storage, its row written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from api.contents import kept
from api.dependencies import Server
from core.errors import InvalidRequest
from core.jobs import files
from core.jobs.files import BASE_MODEL
from core.jobs.models.files import File
from core.jobs.quotas import Quotas, admit_bytes

MAX_PURPOSE = 64
KEEP_SECONDS = range(3600, 30 * 24 * 3600 + 1)  # how long a file that expires may be kept: as OpenAI's


@dataclass(frozen=True)
class Whole:
    """A file that has come whole. `keep_seconds`: until it expires; None: it does not."""

    filename: str
    purpose: str
    bytes: int
    sha256: str
    keep_seconds: int | None = None


def take_in(
    server: Server,
    project_id: str,
    path: Path,
    whole: Whole,
    *,
    note: Callable[[Session, File], None] = lambda session, file: None,
) -> File:
    """Keep the file at `path`; raises InvalidData, by line or member, or QuotaUsedUp, and keeps nothing then.

    `note` adds to the transaction that writes the row; what it raises undoes all of it.
    """
    profile = server.inspector.inspect(path, is_model=whole.purpose == BASE_MODEL)
    with kept(server, path, whole.sha256), server.database.write() as session:
        file = files.add_file(
            session,
            project_id,
            filename=whole.filename,
            purpose=whole.purpose,
            size=whole.bytes,
            sha256=whole.sha256,
            profile=profile,
            keep_seconds=whole.keep_seconds,
        )
        note(session, file)
        admit(server, session, project_id)
    return file


def admit(server: Server, session: Session, project_id: str, *, more: int = 0) -> None:
    """Refuse what a transaction wrote, and so many bytes more, if that is over the project's quota."""
    admit_bytes(session, project_id, more=more, defaults=Quotas.of_server(server.settings))


def refuse_when_full(server: Server, project_id: str) -> None:
    """Raise QuotaUsedUp, before a body is read, if the project may not store a byte more."""
    with server.database.read() as session:
        admit(server, session, project_id, more=1)


def check_purpose(purpose: str) -> str:
    """The purpose; raises InvalidRequest for one that is no short word."""
    if not 0 < len(purpose) <= MAX_PURPOSE or not purpose.isprintable():
        raise InvalidRequest(f"purpose is a short word: dataset, or {BASE_MODEL}", param="purpose")
    return purpose
