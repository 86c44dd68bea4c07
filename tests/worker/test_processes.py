"""Whose processes a worker ends at its start: those of workers that are gone, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import pytest

from worker.processes import MARKER, sweep_orphans

GONE = "2-1"  # a supervisor that is not there: no process starts at the first tick
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]


def until(look: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not look():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def test_what_a_lost_worker_left_is_ended() -> None:
    orphan = subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: GONE})
    until(lambda: sweep_orphans() > 0 or orphan.poll() is not None)  # another test's worker may be there first
    assert orphan.wait(60) == -9


def test_what_runs_in_a_container_is_left_alone() -> None:
    """The id of its supervisor is one of its container's, where another process may have it, or none."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a process namespace")
    inside = ["env", f"{MARKER}={GONE}", "sh", "-c", "echo here; exec sleep 60"]
    contained = subprocess.Popen([*NAMESPACE, *inside], stdout=subprocess.PIPE, text=True)
    assert contained.stdout is not None
    assert contained.stdout.readline() == "here\n"
    sweep_orphans()
    with pytest.raises(subprocess.TimeoutExpired):
        contained.wait(1)
    contained.kill()
    contained.communicate()
