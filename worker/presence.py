"""A worker's slot as others see it: it tells every few seconds that it is there, and hears whether it is to drain."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable

from core.jobs import workers
from core.jobs.database import AWAY, Database
from worker.journal import first_line

CLOSE_SECONDS = 5.0

log = logging.getLogger(__name__)


class Presence(threading.Thread):
    """Beats until it is closed. Its descriptor is readable while the worker is asked to drain.

    `has_gpu`: whether the worker has one; None as long as that is not known, and the worker takes no job.
    """

    def __init__(
        self,
        owner: str,
        database: Database,
        *,
        beat_seconds: float,
        has_gpu: Callable[[], bool | None],
        is_leaving: Callable[[], bool],
    ) -> None:
        super().__init__(name="presence", daemon=True)
        self.is_asked_to_drain = False
        self._owner = owner
        self._database = database
        self._beat_seconds = beat_seconds
        self._has_gpu = has_gpu
        self._is_leaving = is_leaving
        self._asked, self._ask = os.pipe()
        self._is_closed = threading.Event()
        self._is_heard = False

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._asked

    def run(self) -> None:
        """Beat, until closed."""
        while not self._is_closed.is_set():
            has_gpu = self._has_gpu()
            if has_gpu is not None:
                try:
                    self._beat(has_gpu=has_gpu)
                    self._is_heard = True
                except AWAY as error:
                    self._is_heard = False
                    log.warning("the worker could not tell that it is there: %s", first_line(error))
            self._is_closed.wait(self._beat_seconds)

    def _beat(self, *, has_gpu: bool) -> None:
        asked = self.is_asked_to_drain
        with self._database.write() as session:
            should_drain = workers.beat(
                session,
                self._owner,
                host=socket.gethostname(),
                has_gpu=has_gpu,
                is_draining=asked or self._is_leaving(),
                is_asked=asked,
            )
        if should_drain != asked:
            log.info("the worker %s", "drains" if should_drain else "takes jobs again")
            self.is_asked_to_drain = should_drain
            if should_drain:
                os.write(self._ask, b"!")
            else:
                os.read(self._asked, 1)
            self._beat(has_gpu=has_gpu)

    def close(self) -> None:
        """Say that the worker is gone, unless the database is."""
        self._is_closed.set()
        self.join(CLOSE_SECONDS)
        if self._is_heard and not self.is_alive():
            with contextlib.suppress(*AWAY), self._database.write() as session:
                workers.leave(session, self._owner)
