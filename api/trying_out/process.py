"""The process that tries models out, seen from the API: started when it is asked, ended when it has long been idle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anyio import to_thread

from api.stopping import Stopping
from api.trying_out.exchange import Exchange, Message
from core.environment import learning_environment
from core.errors import (
    InvalidRequest,
    TooManyRequests,
    Unavailable,
    WeightworksError,
)
from core.jobs.inputs import Input
from core.placement import place_input
from core.serving import LINE_BYTES
from core.settings import Settings
from core.storage import Storage

ROOT = Path(__file__).parents[2]
RETRY_SECONDS = 5.0

log = logging.getLogger("weightworks.api")


@dataclass(frozen=True)
class Model:
    """A model to try out: `key` is the same for the same weights, and `found` is where they come from."""

    key: str
    found: Input


@dataclass
class Running:
    """The process that runs now, what it wants of models, and where they were placed for it."""

    process: subprocess.Popen[bytes]
    writer: asyncio.StreamWriter
    folders: dict[str, TemporaryDirectory[str]] = field(default_factory=dict)


class ServingProcess:
    """At most one process; it takes at most `serving_queue` orders at once, and of a project as many as it leaves free.

    So nobody ever has the last places, and those who share them come to the same. Choudhury and Hahne 1998, Dynamic
    queue length thresholds for shared-memory packet switches.
    """

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._exchanges: dict[int, Exchange] = {}  # by the number of each order that is not done
        self._models: dict[str, Input] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_number = 0
        self._running: Running | None = None
        self._starting = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def ask(self, project_id: str, orders: Sequence[tuple[Model, Mapping[str, Any]]]) -> Exchange:
        """Give orders for models; raises TooManyRequests if too many are being answered, and Unavailable."""
        self._admit(project_id, len(orders))
        numbers = range(self._last_number + 1, self._last_number + 1 + len(orders))
        self._last_number = numbers[-1]
        exchange = Exchange(project_id, numbers, forget=self.forget, cancel=self.cancel)
        self._exchanges |= dict.fromkeys(numbers, exchange)
        try:
            running = await self._started()
            for number, (model, order) in zip(numbers, orders, strict=True):
                self._models[model.key] = model.found
                _send(running, {**order, "id": number, "model": model.key, "project": project_id})
        except BaseException:
            exchange.close()
            raise
        return exchange

    def _admit(self, project_id: str, count: int) -> None:
        limit = self._settings.serving_queue
        most = max(1, limit // 2)
        if count > most:
            raise InvalidRequest(f"at most {most} prompts or models can be asked at once: send them in parts")
        free = limit - len(self._exchanges) - count
        mine = count + sum(one.project_id == project_id for one in self._exchanges.values())
        if free < 0 or mine > max(1, free):
            raise TooManyRequests(
                f"too many answers are being written: at most {limit} at once, and for a project as many as it leaves "
                "free to others; wait for some",
                code="serving_busy",
                retry_after=RETRY_SECONDS,
            )

    def cancel(self, numbers: Sequence[int]) -> None:
        """Have the process leave these orders."""
        if self._running is not None:
            for number in numbers:
                _send(self._running, {"type": "cancel", "id": number})
        self.forget(numbers)

    def forget(self, numbers: Sequence[int]) -> None:
        """These orders are done; with the last of all, the process begins to be idle."""
        for number in numbers:
            self._exchanges.pop(number, None)
        if not self._exchanges:
            self._models.clear()
            if self._idle is not None:
                self._idle.cancel()
            self._idle = asyncio.get_running_loop().call_later(self._settings.serving_idle_seconds, self._end_if_idle)

    async def end_with(self, stopping: Stopping) -> None:
        """End the process, and all answers with it, when the server is told to stop."""
        await stopping.event.wait()
        self.close()

    def close(self) -> None:
        """End the process and take no more orders."""
        self._is_closed = True
        self._end()
        self._fail(Unavailable("this server is stopping: try again in a moment"), set(self._exchanges.values()))
        if self._idle is not None:
            self._idle.cancel()

    def _end_if_idle(self) -> None:
        if not self._exchanges:
            self._end()

    def _end(self) -> None:
        if self._running is None:
            return
        running, self._running = self._running, None
        running.process.kill()
        running.writer.close()
        self._keep(to_thread.run_sync(_clear_up, running))

    def _fail(self, error: WeightworksError, exchanges: Collection[Exchange]) -> None:
        for exchange in exchanges:
            exchange.put(error)

    async def _started(self) -> Running:
        async with self._starting:
            if self._is_closed:
                raise Unavailable("this server is stopping: try again in a moment")
            if self._running is None:
                await self._start()
            assert self._running is not None  # noqa: S101 - started
            return self._running

    async def _start(self) -> None:
        """Start the process from this thread: it is to end with it."""
        ours, theirs = socket.socketpair()
        settings = self._settings
        options = {
            "device": settings.serving_device,
            "nice": settings.serving_nice,
            "threads": settings.serving_threads,
            "models": settings.serving_models,
            "memory_bytes": settings.serving_memory_bytes,
            "max_unpacked_bytes": settings.max_unpacked_bytes,
        }
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "core.serving", str(theirs.fileno()), str(os.getpid()), json.dumps(options)],
                cwd=ROOT,
                env={**learning_environment(os.environ), "TQDM_DISABLE": "1"},  # bars of what it opens
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
        self._running = Running(process, writer)
        self._keep(self._listen(self._running, reader))

    def _keep(self, action: Any) -> None:
        task = asyncio.create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, running: Running, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._hear(running, json.loads(line))
        if self._running is running:
            self._end()
            lost = set(self._exchanges.values())  # whoever asks from now on is answered by another process
            self._fail(_ended(await to_thread.run_sync(running.process.wait)), lost)

    def _hear(self, running: Running, message: Message) -> None:
        if message["type"] == "wanted":
            self._keep(self._place(running, message["model"]))
        elif message["type"] == "closed":
            if (folder := running.folders.pop(message["model"], None)) is not None:
                self._keep(to_thread.run_sync(folder.cleanup))
        elif (exchange := self._exchanges.get(message["id"])) is not None:
            exchange.put(message)

    async def _place(self, running: Running, key: str) -> None:
        """Lay the model's files where the process can read them, for as long as it opens them."""
        found = self._models.get(key)
        if found is None:  # whoever asked has left since
            _refuse(running, key, Unavailable("ask again"))
            return
        try:
            folder = TemporaryDirectory(prefix="serving-", dir=self._storage.incoming, ignore_cleanup_errors=True)
            running.folders[key] = folder
            place = await to_thread.run_sync(
                lambda: place_input(found, storage=self._storage, path=Path(folder.name) / "model")
            )
        except Exception as error:
            log.warning("a model cannot be placed to be tried out: %s", error)
            told = error if isinstance(error, WeightworksError) else Unavailable("the model's files cannot be read now")
            _refuse(running, key, told)
        else:
            _send(running, {"type": "placed", "model": key, "place": place})


def _clear_up(running: Running) -> None:
    """Wait until the killed process has ended, which its memory may take a while to be given back for."""
    running.process.wait()
    for folder in list(running.folders.values()):
        folder.cleanup()


def _send(running: Running, message: Mapping[str, Any]) -> None:
    if not running.writer.is_closing():
        running.writer.write(json.dumps(message).encode() + b"\n")


def _refuse(running: Running, key: str, error: WeightworksError) -> None:
    """Tell the process that it cannot have this model."""
    _send(running, {"type": "failed", "model": key, "error": {"class": type(error).__name__, **error.as_dict()}})


def _ended(status: int) -> WeightworksError:
    log.warning(
        "the process that tries models out has ended with status %s; another is started when one is asked", status
    )
    by = f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
    return Unavailable(
        f"the process that was writing this {by}, as happens where memory is short, or a prompt takes for ever to be "
        "read: ask again, and for less at once",
        code="serving_ended",
    )
