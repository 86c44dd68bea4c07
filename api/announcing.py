"""Tells the others what was committed: events to the stream, wake-ups to the workers. Never in a request's way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from core.jobs.models.jobs import Event
from core.progress import Publisher

SILENT_SECONDS = 5.0

log = logging.getLogger(__name__)


class Announcer:
    """One thread that speaks to Redis, in order.

    A Redis that cannot be reached is left alone for a while: readers find the events in SQL, and the sweeper wakes
    the workers again.
    """

    def __init__(self, publisher: Publisher, wake: Callable[[str], bool]) -> None:
        self._publisher = publisher
        self._wake = wake
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="announcer")
        self._silent_until = 0.0

    def announce(self, events: Sequence[Event], devices: Sequence[str] = ()) -> None:
        """Publish events that are committed, and wake a worker for each of these devices; returns at once."""
        self._thread.submit(self._announce, events, devices)

    def _announce(self, events: Sequence[Event], devices: Sequence[str]) -> None:
        try:
            self._publisher.publish(events)
            for device in devices:
                if time.monotonic() >= self._silent_until and not self._wake(device):
                    self._silent_until = time.monotonic() + SILENT_SECONDS
        except Exception:
            log.exception("a change could not be announced")

    def close(self) -> None:
        """Say what is still to be said, then stop."""
        self._thread.shutdown()
