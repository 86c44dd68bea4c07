"""Sees to it that a trainer ends: first a grace, then SIGTERM, then SIGKILL, at last the end of its fork server."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from worker.trainers import Trainer, Zygote

TERM_SECONDS = 2.0  # between SIGTERM and SIGKILL
REAP_SECONDS = 10.0  # between SIGKILL and giving the fork server up
NEVER = float("inf")


class Stopping:
    """The steps that are left, and when the next one is due."""

    def __init__(self, trainer: Trainer, zygote: Zygote) -> None:
        self.due_at = NEVER
        self.is_killed = False
        self._trainer = trainer
        self._zygote = zygote
        self._steps: list[Callable[[], None]] = []

    def begin(self, *, grace: float) -> None:
        """Give the trainer so many seconds to end by itself; once begun, a stop is not put off."""
        if not self._steps:
            self._steps = [self._terminate, self.kill, self._give_up]
            self.due_at = time.monotonic() + grace

    def act(self) -> None:
        """Take the next step, if it is due."""
        if time.monotonic() >= self.due_at:
            self._steps.pop(0)()

    def kill(self) -> None:
        """Kill the trainer, and all in its process group, now."""
        self.is_killed = True
        self._trainer.signal(signal.SIGKILL)
        self._steps, self.due_at = [self._give_up], time.monotonic() + REAP_SECONDS

    def _terminate(self) -> None:
        self._trainer.signal(signal.SIGTERM)
        self.due_at = time.monotonic() + TERM_SECONDS

    def _give_up(self) -> None:
        """The fork server does not tell of the trainer's end: end both."""
        self._zygote.close()
        self._trainer.status, self.due_at = int(signal.SIGKILL), NEVER
