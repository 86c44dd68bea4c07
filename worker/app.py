"""The Celery worker: `celery -A worker.app worker`, or `python -m worker`.

The main process waits for wake-ups; its one pool process claims, and supervises. SIGTERM drains: the running job
writes a checkpoint and is given back, and its attempt does not count.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import signals
from kombu import Queue

from core.queue import LOOK, QUEUES, app, wake
from core.settings import settings
from worker.look import Worker

__all__ = ["app", "look"]

ARGUMENTS = [
    "worker",
    "--loglevel=INFO",
    "--pool=prefork",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
]

_worker: Worker | None = None
_slots = 1  # how many jobs may run here at once
_drain: tuple[int, int] | None = None  # a pipe: what is written at one end tells every pool process to leave


def has_gpu() -> bool:
    """Whether this machine seems to have a GPU; the fork server, which has torch, knows for certain."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and any(Path("/dev").glob("nvidia[0-9]*"))


def queue_names() -> list[str]:
    """Where this worker's wake-ups come from."""
    return sorted({*QUEUES.values()} if has_gpu() else {QUEUES["auto"]})


app.conf.task_queues = [Queue(name) for name in queue_names()]


@app.task(name=LOOK)
def look() -> None:
    """Look at the jobs table."""
    if _worker is None:
        _start()  # Celery only logs what went wrong at the start, a storage folder that is not there yet, say
    if _worker is not None:
        with _put_off(signal.SIGTERM):
            _worker.look()


@contextlib.contextmanager
def _put_off(number: int) -> Iterator[None]:
    """Have the worker drain when the signal comes to this process, and obey it only once the block has ended.

    A service manager sends SIGTERM to all processes of a service at once. This one would end in the midst of whatever
    it does, and its job would be lost rather than given back.
    """
    came = False

    def note(*_: Any) -> None:
        nonlocal came
        came = True
        os.kill(os.getppid(), number)

    before = signal.signal(number, note)
    try:
        yield
    finally:
        signal.signal(number, before)
        if came:
            signal.raise_signal(number)


@signals.worker_init.connect
def _prepare_to_drain(sender: Any, **_: Any) -> None:
    global _drain, _slots
    if (ready := settings().ready_file) is not None:
        # Left by one that was killed here: a container that is started again keeps its files.
        ready.unlink(missing_ok=True)
    _drain, _slots = os.pipe(), sender.concurrency or 1


@signals.worker_process_init.connect
def _start(**_: Any) -> None:
    global _worker
    if _drain is not None:
        _worker = Worker(settings(), drain=_drain[0], slots=_slots)
        _worker.start()


@signals.worker_ready.connect
def _look_at_once(**_: Any) -> None:
    """What was queued while no worker ran may have lost its wake-up."""
    wake()


@signals.worker_shutting_down.connect
def _start_draining(**_: Any) -> None:
    if _drain is not None:
        with contextlib.suppress(OSError):
            os.write(_drain[1], b"!")


@signals.worker_process_shutdown.connect
def _stop(**_: Any) -> None:
    if _worker is not None:
        _worker.close()
