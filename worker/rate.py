"""How fast a run goes, by its last reports."""

from __future__ import annotations

from collections import deque

REPORTS = 30


class Rate:
    """Steps a second over the last reports of progress."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, int]] = deque(maxlen=REPORTS)

    def note(self, step: int, *, at: float) -> float | None:
        """Take up a report; answers the rate, None while there is none to tell."""
        self._reports.append((at, step))
        first_at, first_step = self._reports[0]
        if at <= first_at or step <= first_step:
            return None
        return round((step - first_step) / (at - first_at), 3)
