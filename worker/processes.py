"""Processes that end with whoever needs them: groups, and a marker to sweep by."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

MARKER = "WEIGHTWORKS_SUPERVISED_BY"  # in the environment of all that a supervisor starts, and of all that these start
PROC = Path("/proc")
SWEEPS = 20


def own_marker() -> str:
    """What marks this process's descendants: its id, and when it started, since ids are used again."""
    return f"{os.getpid()}-{_started(os.getpid())}"


def signal_group(leader: int, number: int) -> None:
    """Send a signal to a process and its group; the group is not there before the process has made it."""
    for send in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(leader, number)
            return


def sweep(marker: str, *, spare: Collection[int]) -> int:
    """Kill every process with this marker but those to spare; answers how many there were."""
    killed = 0
    for _ in range(SWEEPS):  # what dies may have forked a moment before
        found = [pid for pid, mark in marked() if mark == marker and pid not in spare]
        if not found:
            break
        killed += len(found)
        _kill(found)
    return killed


def sweep_orphans() -> int:
    """Kill every process whose supervisor is gone; answers how many there were."""
    orphans = [pid for pid, mark in marked() if not _is_alive(mark)]
    _kill(orphans)
    return len(orphans)


def marked() -> Iterator[tuple[int, str]]:
    """Every process of this user's that carries a marker: its id and the marker.

    Not those of containers, which can be seen from outside: in theirs, other processes have the ids that they know.
    """
    prefix = f"{MARKER}=".encode()
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if not (folder / "ns/pid").samefile(PROC / "self/ns/pid"):
                continue
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                if entry.startswith(prefix):
                    yield int(folder.name), entry[len(prefix) :].decode()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _is_alive(marker: str) -> bool:
    pid, _, started = marker.partition("-")
    return pid.isdigit() and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty if there is no such process."""
    try:
        fields = stat_fields(pid)
    except OSError:
        return ""
    is_zombie = fields[0] == "Z"
    return "" if is_zombie else fields[19]


def stat_fields(pid: int) -> list[str]:
    """What /proc says of a process behind its name: state, parent, group, session ...; raises OSError if it is gone."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
