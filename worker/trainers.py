"""The supervisor's end of the fork server: start it, have a trainer forked, and clear up after it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.environment import learning_environment
from worker.channel import Channel
from worker.processes import MARKER, own_marker, signal_group, sweep
from worker.zygote import ENDED, FORKED, READY

SEND_SECONDS = 5.0
START_SECONDS = 120.0
FORK_SECONDS = 20.0
UNSUPERVISED = 75  # exit status of a trainer that stopped itself


class ZygoteDied(Exception):  # noqa: N818 - said in the past tense
    """The fork server is gone, and with it its trainer."""


@dataclass
class Trainer:
    """A running trainer: what it says, what it prints, and, once it has ended, how."""

    pid: int
    channel: Channel
    output: int
    status: int | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the trainer and all in its process group, unless it has ended."""
        if self.status is None:
            signal_group(self.pid, number)

    def close(self) -> None:
        """Close the channel and the pipe."""
        self.channel.close()
        os.close(self.output)


class Zygote:
    """A fork server, kept warm; started again when it is found dead."""

    def __init__(self) -> None:
        self.has_gpu = False
        self.methods: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._is_ready = False

    def start(self) -> None:
        """Start it, without waiting for its imports; it dies with the calling thread."""
        self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.zygote", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env=trainer_environment(os.environ),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel = Channel(ours, send_seconds=SEND_SECONDS)
        self._is_ready = False

    @property
    def is_ready(self) -> bool:
        """Whether it was found ready, and may be asked to fork."""
        return self._is_ready

    @property
    def channel(self) -> Channel:
        """Where it tells of its children."""
        if self._channel is None:
            raise ZygoteDied("the fork server was not started")
        return self._channel

    def wait_ready(self, *, stop: int) -> bool:
        """Wait for its imports, starting it if it is not there; answers False if `stop` became readable meanwhile.

        Raises ZygoteDied if it cannot start.
        """
        if self._process is None or self._process.poll() is not None:
            self.start()
        ends_at = time.monotonic() + START_SECONDS
        while not self._is_ready:
            readable, _, _ = select.select([self.channel.fileno(), stop], [], [], max(0.0, ends_at - time.monotonic()))
            if stop in readable:
                return False
            if not readable:
                raise ZygoteDied(f"the fork server was not ready after {START_SECONDS:.0f} seconds")
            for message in self._receive():
                if message["type"] == READY:
                    self._is_ready, self.has_gpu, self.methods = True, message["has_gpu"], message["methods"]
        return True

    def fork(self, run: str) -> Trainer:
        """Have a trainer forked for this run; raises ZygoteDied."""
        ours, theirs = socket.socketpair()
        output, output_write = os.pipe()
        try:
            line = f'{{"run": "{run}"}}\n'.encode()
            socket.send_fds(self.channel.socket, [line], [theirs.fileno(), output_write])
            pid = self._await_fork()
        except (OSError, ZygoteDied) as error:
            ours.close()
            os.close(output)
            raise ZygoteDied(f"the fork server does not answer: {error}") from error
        finally:
            theirs.close()
            os.close(output_write)
        os.set_blocking(output, False)
        return Trainer(pid, Channel(ours, send_seconds=SEND_SECONDS), output)

    def _await_fork(self) -> int:
        ends_at = time.monotonic() + FORK_SECONDS
        while select.select([self.channel], [], [], max(0.0, ends_at - time.monotonic()))[0]:
            for message in self._receive():
                if message["type"] == FORKED:
                    return int(message["pid"])
        raise ZygoteDied(f"no trainer was forked within {FORK_SECONDS:.0f} seconds")

    def note_ended(self, trainer: Trainer) -> None:
        """Read what has come: sets the trainer's status once it has ended. Raises ZygoteDied."""
        for message in self._receive():
            if message["type"] == ENDED and message["pid"] == trainer.pid:
                trainer.status = message["status"]

    def _receive(self) -> list[dict[str, Any]]:
        try:
            return self.channel.receive()
        except EOFError:
            code = self._process.wait() if self._process else None
            raise ZygoteDied(f"the fork server ended with status {code}") from None

    def sweep(self) -> int:
        """Kill all that a trainer left behind; answers how many there were."""
        spare = {os.getpid(), *([self._process.pid] if self._process else [])}
        return sweep(own_marker(), spare=spare)

    def close(self) -> None:
        """End it, and all that it forked."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            sweep(own_marker(), spare={os.getpid()})
        self._process = self._channel = None


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a trainer sees: what learning needs, and the mark by which all that it starts is found."""
    return {**learning_environment(environment), MARKER: own_marker()}
