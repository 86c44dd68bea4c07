"""Processes that end with the one that started them, and take no more memory than they may."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Be killed when the process `parent` ends, which must be this process's parent; leave at once if it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def limit_memory(more_bytes: int) -> None:
    """Let this process, and each that it forks, take so much private memory beyond what it has asked for till now.

    What it asks for beyond that it is refused: MemoryError in Python. Only Linux counts all of it.
    """
    if sys.platform == "linux":
        limit = status_bytes("VmData") + max(0, more_bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def status_bytes(name: str) -> int:
    """What the kernel says of this process's memory under this name, VmData or RssAnon say; 0 where it says nothing."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
    return 0
