"""A temporary folder of this process: where it is killed, the next one to start removes it."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from core.storage.folders import is_locked

LOCK = ".lock"  # held as long as the process lives
YOUNG_SECONDS = 60.0  # the lock of such a folder may not be held yet


class OwnFolder:
    """`path`, until it is closed. `kind`: how its name begins, and those of the folders that are removed."""

    def __init__(self, kind: str) -> None:
        _remove_left(kind)
        self._folder = tempfile.TemporaryDirectory(prefix=f"{kind}-")
        self._lock = Path(self._folder.name, LOCK).open("wb")  # noqa: SIM115 - closed by close
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = Path(self._folder.name, kind)
        self.path.mkdir()

    def close(self) -> None:
        """Remove it."""
        self._lock.close()
        self._folder.cleanup()


def _remove_left(kind: str) -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{kind}-*"):
        with suppress(OSError):  # another process removes it, too, or it is another user's
            is_ours = (left / LOCK).is_file()
            if is_ours and left.stat().st_mtime < time.time() - YOUNG_SECONDS and not is_locked(left / LOCK):
                shutil.rmtree(left, ignore_errors=True)
