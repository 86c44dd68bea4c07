"""How fast a run learns: what it went through a second since it was last asked to begin."""

from __future__ import annotations

import time


class Throughput:
    """Counts; a device works behind the loop's back, so that only the mean over many steps is true."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew, after a pause for something else."""
        self._began = time.monotonic()
        self._count = 0

    def of(self, count: int) -> float:
        """The rate with `count` more."""
        self._count += count
        return self._count / max(time.monotonic() - self._began, 1e-9)
