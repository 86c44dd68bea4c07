"""Data sets, checkpoints and weights as files under keys, on a disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from core.errors import NotFound, StorageFull, Unavailable, WeightworksError

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSING = (errno.EROFS, errno.EIO)
RUST_ERROR = re.compile(r"\(os error (\d+)\)")


class Storage:
    """Files under keys (`jobs/job-1/2/artifacts/model.safetensors`) below one folder.

    A key is whole or absent: content is written beside it and renamed. Raises NotFound for what is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        """Where a key's content lies, or will lie."""
        parts = PurePosixPath(key)
        if parts.is_absolute() or ".." in parts.parts:
            raise NotFound(f"'{key}' is not a storage key")
        return self.root / parts

    def existing(self, key: str) -> Path:
        """The file of a key that is there; raises NotFound."""
        path = self.path(key)
        if not path.is_file():
            raise NotFound(f"storage has no '{key}'")
        return path

    @contextmanager
    def incoming_file(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file to stream into, on the same disk; it is gone afterwards unless `keep` moved it.

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

    def keep(self, source: Path, key: str) -> None:
        """Move a file of the same disk under a key; content that is already there is left as it is."""
        with source.open("rb") as file:
            os.fsync(file.fileno())
        _with_folder(self.path(key), source.replace)

    def link(self, source: Path, key: str) -> None:
        """Put a file under a key without taking it away: a hard link, or a copy from another disk."""
        target = self.path(key)
        partial = target.with_name(f"{target.name}.{secrets.token_hex(12)}")
        try:
            _with_folder(partial, lambda path: _link_or_copy(source, path))
            partial.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

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

    def run_folder(self, job_id: str, fence: int) -> Path:
        """An empty folder for one attempt's scratch, artifacts and checkpoints, on the storage's disk."""
        folder = self.root / "runs" / job_id / str(fence)
        shutil.rmtree(folder, ignore_errors=True)
        _with_folder(folder, Path.mkdir)
        return folder

    def check(self) -> None:
        """Write and remove a byte; raises OSError if the disk does not take it."""
        with self.incoming_file() as (_, file):
            file.write(b"\0")


def _with_folder(target: Path, put: Callable[[Path], object]) -> None:
    """Put something at `target`, making its folder; once more if an empty one was being removed meanwhile."""
    for is_last in (False, True):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            put(target)
            return
        except FileNotFoundError:
            if is_last or target.parent.exists():
                raise


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def refusal_of(error: BaseException | None) -> Unavailable | None:
    """Why a disk did not take what was to be written: it is full, or read-only, or failing; None for another error."""
    while error is not None:
        number = _error_number(error)
        if number in FULL:
            return StorageFull(f"storage is full: free some space, then try again ({error})")
        if number in REFUSING:
            return Unavailable(f"storage fails now; try again later ({error})", code="storage_unavailable")
        error = error.__cause__ or error.__context__
    return None


def _error_number(error: BaseException) -> int | None:
    """The system's number of an error; libraries that are written in Rust, safetensors for one, put it into words."""
    if isinstance(error, OSError):
        return error.errno
    told = None if isinstance(error, WeightworksError) else RUST_ERROR.search(str(error))
    return int(told[1]) if told else None


def file_key(sha256: str) -> str:
    """Where a data set lies: by content, so that the same content is stored once."""
    return f"files/{sha256[:2]}/{sha256}"


def part_key(part_id: str) -> str:
    """Where a part of an upload lies until the upload is complete."""
    return f"parts/{part_id}"


def job_folder(job_id: str) -> str:
    """What the keys of all that a job has stored begin with."""
    return f"jobs/{job_id}"


def artifact_key(job_id: str, fence: int, path: str) -> str:
    """Where one attempt's artifact lies."""
    return f"jobs/{job_id}/{fence}/artifacts/{path}"


def checkpoint_key(job_id: str, fence: int, step: int) -> str:
    """Where one attempt's checkpoint lies."""
    return f"jobs/{job_id}/{fence}/checkpoints/step-{step:09d}.safetensors"


def sample_key(job_id: str, fence: int, name: str) -> str:
    """Where one attempt's sample lies: a picture or a text by which people see what is learned."""
    return f"jobs/{job_id}/{fence}/samples/{name}"
