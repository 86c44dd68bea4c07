"""A process that forks a reader for each order, and is started anew where it has ended; see core/forking.py."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from core.environment import learning_environment
from core.errors import WeightworksError
from core.forking import raise_told

ROOT = Path(__file__).parents[1]

T = TypeVar("T")

log = logging.getLogger("weightworks.api")


class Readers:
    """The process `python -m <module>`, started at its first order, or by `start`. `at_once`: readers in turn."""

    def __init__(self, module: str, *, at_once: int) -> None:
        self._module = module
        self._turns = CapacityLimiter(at_once)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    async def in_turn(self, action: Callable[..., T], *arguments: Any) -> T:
        """Run what reads in a thread, a few at once; other requests find threads of their own free."""
        return await to_thread.run_sync(action, *arguments, limiter=self._turns)

    def ask(self, order: Mapping[str, Any], *, of: str) -> Any:
        """What a reader found; raises what it told of, WeightworksError for `of` what it failed at.

        Raises EOFError where it was ended by its limits, or crashed.
        """
        content = self._asked(json.dumps(order).encode())
        if not content:
            log.warning("the reader of %s was ended by its limits, or crashed", of)
            raise EOFError
        answer = json.loads(content)
        if "failure" in answer:
            log.error("%s could not be read:\n%s", of, answer["failure"])
            raise WeightworksError("the server failed to read this file; its log says more")
        if "error" in answer:
            raise_told(answer["error"])
        return answer["found"]

    def start(self) -> socket.socket:
        """Have the process; answers where it takes orders."""
        if self._orders is None:
            self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", self._module, str(theirs.fileno())],
                    cwd=ROOT,
                    env=learning_environment(os.environ),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                )
        return self._orders

    def close(self) -> None:
        """End the process, and with it all readers."""
        if self._orders is not None and self._process is not None:
            self._orders.close()
            self._process.kill()
            self._process.wait()
        self._orders = self._process = None

    def _asked(self, order: bytes) -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._send(theirs.fileno())
            theirs.close()
            with contextlib.suppress(ConnectionError):
                ours.sendall(order)
                ours.shutdown(socket.SHUT_WR)
                with ours.makefile("rb") as answer:
                    return answer.read()
        return b""

    def _send(self, descriptor: int) -> None:
        with self._lock:
            try:
                socket.send_fds(self.start(), [b"."], [descriptor])
            except OSError:
                log.info("the process of %s has ended; another is started", self._module)
                self.close()
                socket.send_fds(self.start(), [b"."], [descriptor])
