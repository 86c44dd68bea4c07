"""What takes storage a while, done beside the supervisor's loop: a lease must be renewed while gigabytes are moved."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import NoReturn, TypeVar

T = TypeVar("T")
Answer = Callable[[], T]  # what was done answers, or raises


class Errands:
    """One thread that does them in order; `finish` then hears of them in the thread that sent them.

    A daemon: whoever leaves does not wait for a storage that hangs.
    """

    def __init__(self) -> None:
        self._done_at = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._to_do: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._waiting = 0
        self._is_closed = False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="errands", daemon=True).start()

    def send(self, action: Callable[[], T], *, then: Callable[[Answer[T]], None]) -> None:
        """Have it done, and `then` told of it by `finish`."""
        self._waiting += 1
        self._to_do.put(partial(self._do, action, then))

    @property
    def are_done(self) -> bool:
        """Whether all were done and heard of."""
        return self._waiting == 0

    def fileno(self) -> int:
        """Readable when something is done."""
        return self._done_at

    def finish(self) -> None:
        """Tell of what is done."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._done_at)
        while not self._done.empty():
            self._waiting -= 1
            self._done.get()()

    def close(self) -> None:
        """Begin no more; what is being done ends by itself, and nobody hears of it."""
        with self._lock:
            self._is_closed = True
            os.close(self._done_at)
        self._to_do.put(None)

    def _run(self) -> None:
        while (errand := self._to_do.get()) is not None and not self._is_closed:
            errand()

    def _do(self, action: Callable[[], T], then: Callable[[Answer[T]], None]) -> None:
        try:
            answer: Answer[T] = partial(_return, action())
        except Exception as error:  # it is raised where it is heard of
            answer = partial(_raise, error)
        with self._lock:
            if not self._is_closed:
                self._done.put(partial(then, answer))
                os.eventfd_write(self._done_at, 1)


def _return(value: T) -> T:
    return value


def _raise(error: Exception) -> NoReturn:
    raise error
