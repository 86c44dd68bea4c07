"""Row 12: a Redis that accepts connections and says nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.trials import Trial, fault

ANSWER_SECONDS = 3.0


@fault(row=12, name="a Redis that accepts and says nothing", alone=True)
def silent_redis(trial: Trial) -> None:
    spec = trial.example("pca")
    trial.stack.redis.kill()
    with silent_at(trial.stack.redis.socket):
        for _ in range(3):
            asked_at = time.monotonic()
            trial.submit(spec).expect("succeeded", attempts=1)
            took = time.monotonic() - asked_at
            trial.require(took < ANSWER_SECONDS, f"POST /v1/jobs took {took:.1f} seconds")
        for job in trial.jobs:
            job.until_ended()


@contextlib.contextmanager
def silent_at(address: Path) -> Iterator[None]:
    """Someone who listens there, takes every connection, and never answers."""
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(1024)
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()
