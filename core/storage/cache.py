"""Local copies of what lies far away, shared by all processes of a machine and bounded in size."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from core.storage import folders

KEEP_SECONDS = 24 * 3600  # what has been deleted from storage does not live on here for longer
PARTIAL = ".partial"


class Cache:
    """Files by the hash of their keys. A key's content never changes, so a copy is never out of date.

    Whoever wants a copy gets a hard link: what the cache removes later is still there for them.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def place(self, key: str, target: Path, *, size: int, write: Callable[[BinaryIO], None]) -> None:
        """Have the content at `target`, whose folder is there; `write` is asked for it only if nobody has a copy.

        What is larger than all of the cache goes past it. Raises what `write` raises.
        """
        if size > self.limit_bytes:
            with target.open("wb") as file:
                write(file)
            return
        entry = self.folder / hashlib.sha256(key.encode()).hexdigest()
        while not _take(entry, target):
            with _alone(entry.with_name(entry.name + PARTIAL)) as file:
                if entry.exists():
                    continue
                self._make_room(size)
                file.truncate(0)
                write(file)
                file.flush()
                os.fsync(file.fileno())
                os.rename(file.name, entry)
                entry.chmod(0o444)

    def trim(self) -> None:
        """Remove what nobody has used for long, and what killed processes have begun."""
        self._make_room(0)

    def _make_room(self, wanted: int) -> None:
        oldest = time.time() - KEEP_SECONDS
        found = sorted(self._entries(), key=lambda one: one[1].st_mtime, reverse=True)
        for path, told in found:
            wanted += told.st_size
            if wanted <= self.limit_bytes and told.st_mtime >= oldest:
                continue
            if _remove(path):
                wanted -= told.st_size

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        for name in folders.names_in(self.folder):
            with contextlib.suppress(FileNotFoundError):
                yield self.folder / name, (self.folder / name).stat()


def _take(entry: Path, target: Path) -> bool:
    """Link a copy to `target`, and note that it was used; answers False if there is none."""
    try:
        os.utime(entry)
        folders.link_or_copy(entry, target)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that no other process writes at the same time, under this name."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(path, file):  # else it was removed meanwhile, or has become a copy
                yield file
                return


def _remove(path: Path) -> bool:
    """Remove a copy, or what somebody began who is not at it any more; answers False if somebody is."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if _is_at(path, file):
            path.unlink()
    return True


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
