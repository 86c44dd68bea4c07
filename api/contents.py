"""The contents of files in storage: each is there once, for as long as any row has its hash.

No transaction spans database and storage, so a content may be deleted while someone uploads it again. Both sides look
again at the end: whoever uploads puts back what is missing, and whoever deletes puts back what is used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.dependencies import Server
from core.jobs.files import is_content_used
from core.storage import file_key


@contextmanager
def kept(server: Server, path: Path, sha256: str) -> Iterator[None]:
    """Have the content in storage while the block writes its row, and after it; if that fails, not for its sake."""
    key = file_key(sha256)
    server.storage.link(path, key)
    try:
        yield
    except BaseException:
        forget(server, sha256)
        raise
    if not server.storage.path(key).exists():
        server.storage.link(path, key)


def forget(server: Server, sha256: str) -> None:
    """Delete the content unless a row has this hash."""
    key = file_key(sha256)
    if _is_used(server, sha256):
        return
    with server.storage.incoming_file() as (aside, _):
        try:
            server.storage.path(key).replace(aside)
        except FileNotFoundError:
            return
        if _is_used(server, sha256):
            server.storage.link(aside, key)


def _is_used(server: Server, sha256: str) -> bool:
    with server.database.read() as session:
        return is_content_used(session, sha256)
