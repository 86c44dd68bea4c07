"""Notices at once that the server was told to stop, so that open streams end instead of being waited for."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """An event that is set when SIGTERM or SIGINT comes; whoever handled the signal before still does."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self.event.set)
        if callable(self._before[number]):
            self._before[number](number, frame)

    def close(self) -> None:
        """Leave the signals to whoever had them."""
        self.event.set()
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
