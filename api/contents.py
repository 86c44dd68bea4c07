"""The contents of files in storage: each is there once, for as long as any row has its hash.

No transaction spans database and storage, so a content may be deleted while someone uploads it again. Both sides look
again at the end: whoever uploads puts back what is missing, and whoever deletes puts back what is used again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from api.dependencies import Server
from core.jobs.files import is_content_used
from core.storage import file_key


def kept(server: Server, path: Path, sha256: str) -> AbstractContextManager[None]:
    """Have the content in storage while the block writes its row, and after it; if that fails, not for its sake."""
    return server.storage.kept(path, file_key(sha256), is_used=partial(_is_used, server, sha256))


def forget(server: Server, sha256: str, *, version: str | None = None) -> int:
    """Delete the content unless a row has this hash; answers the bytes that are free then.

    `version`: only if it is still that one, and nobody has uploaded it again meanwhile.
    """
    return server.storage.forget(file_key(sha256), is_used=partial(_is_used, server, sha256), version=version)


def _is_used(server: Server, sha256: str) -> bool:
    with server.database.read() as session:
        return is_content_used(session, sha256)
