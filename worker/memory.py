"""How much memory a trainer may take, and how much it and its children have."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from worker.processes import PROC, stat_fields

SHARE = 0.9  # of the machine's memory, for all trainers of a worker together
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def allowance(configured: int, *, slots: int) -> int:
    """The bytes that a trainer may have: as configured, or its share of the machine's or the container's memory."""
    return configured or int(SHARE * _memory_bytes() / slots)


def _memory_bytes() -> int:
    total = re.search(r"MemTotal:\s+(\d+) kB", (PROC / "meminfo").read_text())
    found = [1024 * int(total[1])] if total else []
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max", or no such thing here
            found.append(int(path.read_text()))
    return min(found)


def taken_bytes(leader: int) -> int:
    """What a process and all others of its session have to themselves; what several share is divided among them.

    Files that are mapped do not count: the system takes that memory back when it needs it.
    """
    return sum(_private_bytes(folder) for folder in PROC.glob("[0-9]*") if _session_of(int(folder.name)) == leader)


def _session_of(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(stat_fields(pid)[3])
    return 0


def _private_bytes(folder: Path) -> int:
    with contextlib.suppress(OSError):
        rollup = (folder / "smaps_rollup").read_text()
        return 1024 * sum(map(int, re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", rollup, re.MULTILINE)))
    return 0
