"""Waiting for signals without missing one: requests to stop are counted, the end of a child wakes."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from types import TracebackType
from typing import Any, Self

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Inside the block, Ctrl-C and its like only count; `wait` returns at once when one comes or a child ends."""

    def __init__(self) -> None:
        self.stops = 0

    def __enter__(self) -> Self:
        self._wakes, self._wake = socket.socketpair()
        for end in (self._wakes, self._wake):
            end.setblocking(False)
        self._before: dict[int, Any] = {number: signal.signal(number, self._count) for number in STOP}
        if self._before[signal.SIGHUP] is signal.SIG_IGN:  # as nohup wants it
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._wakes.close()
        self._wake.close()

    def wait(self, seconds: float) -> None:
        """Until a signal comes, or so many seconds."""
        select.select([self._wakes], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            self._wakes.recv(4096)

    def _count(self, number: int, frame: Any) -> None:
        self.stops += 1
