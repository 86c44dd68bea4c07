"""What a server and all that it started have used: CPU seconds, and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psutil

from benchmarks.service.servers import family


def spent(pid: int, action: Callable[[], object]) -> float:
    """CPU seconds of the process, and of its descendants, while the action runs; of those that ended, too."""
    before = cpu_seconds(pid)
    action()
    return cpu_seconds(pid) - before


def cpu_seconds(pid: int) -> float:
    """Of the process and of all its descendants: those that live, and those that were waited for."""
    total = 0.0
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def proportional_bytes(pid: int) -> int:
    """Memory of the process and all its descendants; a page that several share counts once (PSS)."""
    total = 0
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total
