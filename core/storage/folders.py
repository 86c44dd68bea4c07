"""What lies in a folder of this machine, whoever put it there: for those who look for what nobody needs any more."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """A file, or a folder with all that is in it.

    `changed_at`: when it was last written, linked or moved, by the storage's clock (a link brings its source's time of
    writing along, which says nothing of when it came). `bytes`: what its end would free: none where another link
    holds the content. `version`: another for whatever else is put under the key.
    """

    key: str
    bytes: int
    changed_at: float
    version: str


def files_below(root: Path, folder: str) -> Iterator[Found]:
    """Every file below this folder of `root`."""
    for place, _, names in os.walk(root / folder):
        for name in sorted(names):
            found = _look(root, Path(place, name))
            if found is not None:
                yield found


def folder_as_one(root: Path, folder: str) -> Found:
    """The folder, as old as what changed last in it."""
    files = list(files_below(root, folder))
    itself = _look(root, root / folder)
    times = [found.changed_at for found in (*files, *([itself] if itself else []))]
    return Found(folder, sum(found.bytes for found in files), max(times, default=0.0), "")


def names_in(folder: Path) -> list[str]:
    """What lies directly in a folder, by name."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def clock_of(folder: Path) -> float:
    """The time by the disk's own clock, which is what `changed_at` was taken from."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_ctime


def is_locked(path: Path) -> bool:
    """Whether a living process has this file open and locked, under whatever name: the lock dies with it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; one that is not there is no error."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file at `target`, whose folder is there, without taking it away."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _look(root: Path, path: Path) -> Found | None:
    try:
        told = path.lstat()
    except FileNotFoundError:  # it has gone meanwhile
        return None
    size = told.st_size if told.st_nlink == 1 else 0
    return Found(str(path.relative_to(root)), size, told.st_ctime, str(told.st_ino))
