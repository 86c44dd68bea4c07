"""What a storage does, whichever kind it is."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from core.errors import NotFound
from core.storage.folders import Found


class Stored(Protocol):
    """A key's content, to be read or sent."""

    @property
    def path(self) -> Path | None:
        """The file itself, where storage is a disk."""

    def address(self, method: str, *, disposition: str, media_type: str) -> str | None:
        """An address that answers this method for a while without any key; None: storage has none to give."""

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` until before `end`. Raises NotFound, EOFError or OSError."""


class Storage(ABC):
    """Content under keys (`jobs/job-1/2/artifacts/model.safetensors`), and a folder for what is on its way.

    A key is whole or absent. Raises NotFound for what is not there, and OSError for what storage refuses: for its
    reason see `refusal_of`.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.incoming = scratch / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    # The folder of this machine.

    @contextmanager
    def incoming_file(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file to stream into; it is gone afterwards unless `keep` moved it.

        It is locked until then, or until this process is killed: that tells others whether somebody is at work on it.
        """
        path = self.incoming / secrets.token_hex(12)
        try:
            with path.open("wb") as file:
                with contextlib.suppress(OSError):  # a network's disk may know no locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def run_folder(self, job_id: str, fence: int) -> Path:
        """An empty folder for one attempt's inputs, artifacts and checkpoints."""
        folder = self.scratch / "runs" / job_id / str(fence)
        shutil.rmtree(folder, ignore_errors=True)
        put_with_folder(folder, Path.mkdir)
        return folder

    def tidy(self) -> None:  # noqa: B027 - not every storage has something to do
        """Remove copies that nobody has used for long; to be called now and then."""

    # Content in, and out.

    @abstractmethod
    def keep(self, source: Path, key: str) -> None:
        """Move a file of the scratch folder under a key."""

    @abstractmethod
    def link(self, source: Path, key: str) -> None:
        """Put a file under a key without taking it away. Raises FileNotFoundError if there is no such file."""

    @abstractmethod
    def has(self, key: str) -> bool:
        """Whether there is something under the key."""

    @abstractmethod
    def stored(self, key: str) -> Stored:
        """The content of a key that is there; raises NotFound."""

    @abstractmethod
    def fetch(self, key: str, target: Path) -> Path:
        """A local file with the content, not to be changed: the storage's own, or a copy at `target`.

        Raises NotFound.
        """

    # Content that anybody may put there again at any time, because its key is its hash.

    @contextmanager
    def kept(self, source: Path, key: str, *, is_used: Callable[[], bool]) -> Iterator[None]:
        """Have the content there while the block writes a row, and after it; if that fails, not for its sake."""
        self._bring(source, key)
        try:
            yield
        except BaseException:
            self.forget(key, is_used=is_used)
            raise
        self._bring_back(source, key)

    @abstractmethod
    def _bring(self, source: Path, key: str) -> None:
        """Put the content under its key, where it may be already."""

    @abstractmethod
    def _bring_back(self, source: Path, key: str) -> None:
        """Put the content there again if somebody has forgotten it who did not see the row yet."""

    @abstractmethod
    def forget(self, key: str, *, is_used: Callable[[], bool], version: str | None = None) -> int:
        """Delete the content unless it is used, or comes into use meanwhile; answers the bytes that are free then.

        `version`: only if it is still that one.
        """

    # Content away.

    @abstractmethod
    def delete(self, key: str) -> None:
        """Forget a key; one that is not there is no error."""

    @abstractmethod
    def delete_folder(self, key: str) -> None:
        """Forget all keys that begin with this folder; one that is not there is no error."""

    # What is there, whoever put it there.

    def check(self) -> None:
        """Write a byte into the scratch folder; raises OSError if it is not taken."""
        with self.incoming_file() as (_, file):
            file.write(b"\0")

    @abstractmethod
    def now(self) -> float:
        """The time by the storage's own clock, which `Found.changed_at` is by."""

    @abstractmethod
    def files_below(self, folder: str) -> Iterator[Found]:
        """Everything whose key begins with this folder."""

    @abstractmethod
    def names_in(self, folder: str) -> list[str]:
        """What lies directly in a folder, by name."""

    @abstractmethod
    def is_streamed_into(self, key: str) -> bool:
        """Whether a living process has this open as an incoming file, as far as storage can tell."""

    @abstractmethod
    def collect(self, before: float) -> int:
        """Remove what killed processes left of the storage's own before this time; answers how much."""


def checked(key: str) -> PurePosixPath:
    """The key as a path that leads nowhere else; raises NotFound."""
    parts = PurePosixPath(key)
    if parts.is_absolute() or ".." in parts.parts:
        raise NotFound(f"'{key}' is not a storage key")
    return parts


def put_with_folder(target: Path, put: Callable[[Path], object]) -> None:
    """Put something at `target`, making its folder; once more if an empty one was being removed meanwhile."""
    for is_last in (False, True):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            put(target)
            return
        except FileNotFoundError:
            if is_last or target.parent.exists():
                raise
