"""Data sets, checkpoints and weights as files under keys, on a disk."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.errors import NotFound
from core.storage import folders
from core.storage.folders import Found, link_or_copy
from core.storage.interface import Storage, checked, put_with_folder

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """A key's content: a file that is there."""

    path: Path

    def address(self, method: str, *, disposition: str, media_type: str) -> str | None:
        """None: a disk speaks no HTTP."""

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` until before `end`."""
        try:
            file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"storage has no '{self.path.name}'") from None
        with file:
            file.seek(start)
            while start < end:
                chunk = file.read(min(CHUNK_BYTES, end - start))
                if not chunk:
                    raise EOFError(f"{self.path.name} is shorter than its row says")
                start += len(chunk)
                yield chunk


class DiskStorage(Storage):
    """Files below one folder. Content is written beside its key and renamed; what is on its way lies there too."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root

    def path(self, key: str) -> Path:
        """Where a key's content lies, or will lie."""
        return self.root / checked(key)

    def existing(self, key: str) -> Path:
        """The file of a key that is there; raises NotFound."""
        path = self.path(key)
        if not path.is_file():
            raise NotFound(f"storage has no '{key}'")
        return path

    def has(self, key: str) -> bool:
        """Whether there is a file under the key."""
        return self.path(key).exists()

    def stored(self, key: str) -> StoredFile:
        """The file of a key that is there; raises NotFound."""
        return StoredFile(self.existing(key))

    def fetch(self, key: str, target: Path) -> Path:
        """The storage's own file; raises NotFound."""
        return self.existing(key)

    def keep(self, source: Path, key: str) -> None:
        """Move a file of the same disk under a key."""
        with source.open("rb") as file:
            os.fsync(file.fileno())
        put_with_folder(self.path(key), source.replace)

    def link(self, source: Path, key: str) -> None:
        """Put a file under a key without taking it away: a hard link, or a copy from another disk."""
        target = self.path(key)
        beside = target.with_name(f"{target.name}.{secrets.token_hex(12)}")
        try:
            put_with_folder(beside, partial(link_or_copy, source))
            beside.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise

    def _bring(self, source: Path, key: str) -> None:
        self.link(source, key)

    def _bring_back(self, source: Path, key: str) -> None:
        if not self.has(key):
            self.link(source, key)

    def forget(self, key: str, *, is_used: Callable[[], bool], version: str | None = None) -> int:
        """Delete the content unless it is used: moved aside, looked again, and put back if it is used by then."""
        if is_used():
            return 0
        with self.incoming_file() as (aside, _):
            try:
                self.path(key).replace(aside)
            except FileNotFoundError:
                return 0
            told = aside.stat()
            if (version is not None and str(told.st_ino) != version) or is_used():
                self.link(aside, key)
                return 0
        return told.st_size

    def delete(self, key: str) -> None:
        """Forget a key, and the folders that are empty then; one that is not there is no error."""
        path = self.path(key)
        path.unlink(missing_ok=True)
        self._remove_empty(path.parent)

    def delete_folder(self, key: str) -> None:
        """Forget all keys that begin with this folder; one that is not there is no error."""
        path = self.path(key)
        shutil.rmtree(path, ignore_errors=True)
        self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            while self.root in folder.parents and folder.parent != self.root:
                folder.rmdir()
                folder = folder.parent

    def now(self) -> float:
        """The time by the disk's own clock."""
        return folders.clock_of(self.incoming)

    def files_below(self, folder: str) -> Iterator[Found]:
        """Every file whose key begins with this folder."""
        return folders.files_below(self.root, folder)

    def names_in(self, folder: str) -> list[str]:
        """What lies directly in a folder, by name."""
        return folders.names_in(self.root / folder)

    def is_streamed_into(self, key: str) -> bool:
        """Whether a living process has this open as an incoming file: it holds a lock, which dies with it.

        The lock goes with the content, to whatever key that is moved or linked meanwhile.
        """
        return folders.is_locked(self.path(key))

    def collect(self, before: float) -> int:
        """A disk's storage has nothing but its keys and its scratch folder."""
        return 0
