"""Disks of their own for storage and database, which can be full, or read-only: tmpfs, in a namespace of our own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.faults.parts import repeating, until

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 1 << 14, 1 << 18
MNT_DETACH = 2
SIZE_BYTES = 2 * 2**30  # taken only as it is used
PAGE_BYTES = 4096
KEEP_FULL_SECONDS = 0.02

_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """A file system of its own at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        _mount("tmpfs", path, "tmpfs", 0, f"size={SIZE_BYTES},mode=755")

    @contextmanager
    def full(self) -> Iterator[None]:
        """No space left, until the block ends; what is removed meanwhile makes no room."""
        until(self._shrink, what=f"to fill {self.path}")
        try:
            with repeating(self._shrink, every=KEEP_FULL_SECONDS):
                yield
        finally:
            self._remount(0, SIZE_BYTES)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """It cannot be written until the block ends."""
        until(lambda: self._may_remount(MS_RDONLY, SIZE_BYTES), what=f"until nobody writes to {self.path}")
        try:
            yield
        finally:
            self._remount(0, SIZE_BYTES)

    def _shrink(self) -> bool:
        found = os.statvfs(self.path)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return self._may_remount(0, max(PAGE_BYTES, used))

    def _may_remount(self, flags: int, size: int) -> bool:
        with contextlib.suppress(OSError):  # more is used than a moment ago, or a file is open for writing
            self._remount(flags, size)
            return True
        return False

    def _remount(self, flags: int, size: int) -> None:
        _mount("tmpfs", self.path, "tmpfs", MS_REMOUNT | flags, f"size={size}")

    def close(self) -> None:
        """Take it away, with all that is on it."""
        _libc.umount2(os.fsencode(self.path), MNT_DETACH)
        shutil.rmtree(self.path, ignore_errors=True)


class Disks:
    """The disks of a stack. `why_not`: why they are ordinary folders, which cannot be broken; None if they are not."""

    def __init__(self, folder: Path) -> None:
        self.why_not = own_namespace()
        self.storage = folder / "storage"
        self.database = Path(tempfile.mkdtemp(prefix="ww-database-"))  # a short path, where any user may go
        self.database.chmod(0o755)
        self._disks = {} if self.why_not else {path: Disk(path) for path in (self.storage, self.database)}

    def __getitem__(self, path: Path) -> Disk:
        return self._disks[path]

    def close(self) -> None:
        """Take them away."""
        for disk in self._disks.values():
            disk.close()
        shutil.rmtree(self.database, ignore_errors=True)


@cache
def own_namespace() -> str | None:
    """Give this process, and all that it starts, mounts that nobody else sees; answers why not, if that cannot be.

    Root may; anyone else needs to become root of a user namespace first, which is not allowed everywhere.
    """
    try:
        if os.geteuid() == 0:
            _check(_libc.unshare(CLONE_NEWNS))
        else:
            _enter_user_namespace()
        _mount("none", Path("/"), None, MS_REC | MS_PRIVATE, None)
    except (OSError, AttributeError) as error:
        return f"NO DISK CAN BE BROKEN HERE: mounts of our own need root, or user namespaces ({error})"
    return None


def _enter_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str | None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), None if options is None else options.encode()))


def _check(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
