"""Child processes that never outlive this one: sessions of their own, output in files, restarted when they die."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 60.0
LOG_BYTES = 10 * 2**20

_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """One program that should run until it is stopped.

    Start it from the main thread: Linux kills it when the thread that started it ends, which is what keeps anything
    from being left behind when this process is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        given: bytes = b"",
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.environment = dict(environment)
        self.log = log
        self.given = given
        self.descriptors = descriptors
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause = FIRST_PAUSE
        self._start_at: float | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it, with `given` on its standard input."""
        keep_log_short(self.log)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE if self.given else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.descriptors,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(self.given)
        self._started_at, self._start_at = time.monotonic(), None

    def exit_status(self) -> int | None:
        """How it ended; None while it runs, or if it was never started."""
        return self._process.poll() if self._process else None

    def keep_alive(self) -> str | None:
        """Start it again if it died, after a pause that doubles each time; answers what there is to say of it."""
        status = self.exit_status()
        if status is None:
            return None
        now = time.monotonic()
        if self._start_at is None:
            self.kill()
            self._pause = FIRST_PAUSE if now - self._started_at > STEADY_SECONDS else self._pause
            self._start_at = now + self._pause
            told = f"{self.name} ended ({describe(status)}); starting it again in {self._pause:g} s, see {self.log}"
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            return told
        if now >= self._start_at:
            self.restarts += 1
            self.start()
        return None

    def ask_to_stop(self) -> None:
        """Send SIGTERM to it alone: what it started, it ends itself."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it and whatever is left of its session's first group."""
        if self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def describe(status: int) -> str:
    """An exit status in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log, for an error message."""
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
    return ""


def keep_log_short(log: Path) -> None:
    """Put a long log aside as `<name>.1`, so that two of them are the most there ever are."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes its program: be killed at the parent's death, or end if that came first."""

    def prepare() -> None:
        if sys.platform == "linux":
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
