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


def forget(server: Server, sha256: str, *, inode: int | None = None) -> int:
    """Delete the content unless a row has this hash; answers the bytes that are free then.

    `inode`: only if it is still that one, and nobody has uploaded it again meanwhile.
    """
    key = file_key(sha256)
    if _is_used(server, sha256):
        return 0
    with server.storage.incoming_file() as (aside, _):
        try:
            server.storage.path(key).replace(aside)
        except FileNotFoundError:
            return 0
        told = aside.stat()
        if (inode is not None and told.st_ino != inode) or _is_used(server, sha256):
            server.storage.link(aside, key)
            return 0
    return told.st_size


def _is_used(server: Server, sha256: str) -> bool:
    with server.database.read() as session:
        return is_content_used(session, sha256)
