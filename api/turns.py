"""Turns at what takes long: of threads, the next for the project that has the fewest; of requests, one of a project."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

LOOK_SECONDS = 0.2


class OneOfEach:
    """A lock for each project, there as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, project_id: str) -> asyncio.Lock:
        """The project's."""
        return self._locks.setdefault(project_id, asyncio.Lock())


class Turns:
    """`at_once` turns; of projects that have as many, the next is for the thread that came first."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._waiting: list[tuple[str, threading.Event]] = []

    @contextmanager
    def turn(self, project_id: str, *, check: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn, which is over when the block ends. `check` is called while it waits, and may raise."""
        mine = (project_id, threading.Event())
        with self._lock:
            self._waiting.append(mine)
            self._give()
        try:
            while not mine[1].wait(LOOK_SECONDS):
                check()
            yield
        finally:
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                else:
                    self._free += 1
                    self._running[project_id] -= 1
                self._give()

    def _give(self) -> None:
        while self._free and self._waiting:
            project_id, has_come = next_one = min(self._waiting, key=lambda one: self._running[one[0]])
            self._waiting.remove(next_one)
            self._free -= 1
            self._running[project_id] += 1
            has_come.set()
