"""What lies in storage, whoever put it there: for those who look for what nothing points to any more."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.storage import Storage


@dataclass(frozen=True)
class Found:
    """A file, or a folder with all that is in it.

    `changed_at`: when it was last written, linked or moved, by the disk's clock (a link brings its source's time of
    writing along, which says nothing of when it came). `bytes`: what its end would free: none where another link
    holds the content.
    """

    key: str
    bytes: int
    changed_at: float
    inode: int


def files_below(storage: Storage, folder: str) -> Iterator[Found]:
    """Every file whose key begins with this folder."""
    for place, _, names in os.walk(storage.root / folder):
        for name in sorted(names):
            found = _look(storage, Path(place, name))
            if found is not None:
                yield found


def folder_as_one(storage: Storage, folder: str) -> Found:
    """The folder, as old as what changed last in it."""
    files = list(files_below(storage, folder))
    itself = _look(storage, storage.root / folder)
    times = [found.changed_at for found in (*files, *([itself] if itself else []))]
    return Found(folder, sum(found.bytes for found in files), max(times, default=0.0), 0)


def names_in(storage: Storage, folder: str) -> list[str]:
    """What lies directly in a folder, by name."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(storage.root / folder))
    return []


def time_of(storage: Storage) -> float:
    """The time by the disk's own clock, which is what `changed_at` was taken from."""
    with storage.incoming_file() as (path, _):
        return path.stat().st_ctime


def is_streamed_into(storage: Storage, key: str) -> bool:
    """Whether a living process has this open as an incoming file: it holds a lock, which dies with it.

    The lock goes with the content, to whatever key that is moved or linked meanwhile.
    """
    try:
        with storage.path(key).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _look(storage: Storage, path: Path) -> Found | None:
    try:
        told = path.lstat()
    except FileNotFoundError:  # it has gone meanwhile
        return None
    size = told.st_size if told.st_nlink == 1 else 0
    return Found(str(path.relative_to(storage.root)), size, told.st_ctime, told.st_ino)
