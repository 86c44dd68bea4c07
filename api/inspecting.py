"""Has uploaded files read by processes of their own, a few at once; see core/inspecting.py."""

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
from core.errors import InvalidData, Problem, TooLarge, WeightworksError
from core.inspecting import TOO_DEMANDING
from core.settings import Settings

ROOT = Path(__file__).parents[1]
AT_ONCE = 4

T = TypeVar("T")

log = logging.getLogger("weightworks.api")


class Inspector:
    """One process that forks a reader for each file. Where it has ended, another is started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = CapacityLimiter(AT_ONCE)
        self._lock = threading.Lock()
        self._start()

    async def in_turn(self, action: Callable[..., T], *arguments: Any) -> T:
        """Run what inspects in a thread, a few at once; other requests find threads of their own free."""
        return await to_thread.run_sync(action, *arguments, limiter=self._turns)

    def inspect(self, path: Path, *, is_model: bool) -> dict[str, Any] | None:
        """The profile of a data set, None of a base model; raises InvalidData or TooLarge for what is wrong in it."""
        answer = self._ask(
            {
                "path": str(path),
                "is_model": is_model,
                "max_unpacked_bytes": self._settings.max_unpacked_bytes,
                "memory_bytes": self._settings.inspection_memory_bytes,
                "seconds": self._settings.inspection_seconds,
            }
        )
        if not answer:
            raise self._unanswered()
        return _understood(json.loads(answer))

    def close(self) -> None:
        """End the process, and with it all readers."""
        self._orders.close()
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "core.inspecting", str(theirs.fileno())],
                cwd=ROOT,
                env=learning_environment(os.environ),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )

    def _ask(self, order: Mapping[str, Any]) -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._send(json.dumps(order).encode(), theirs.fileno())
            theirs.close()
            with ours.makefile("rb") as answer, contextlib.suppress(ConnectionError):
                return answer.read()
        return b""

    def _send(self, order: bytes, descriptor: int) -> None:
        with self._lock:
            try:
                socket.send_fds(self._orders, [order], [descriptor])
            except OSError:
                log.warning("the process that reads uploads has ended; another is started")
                self.close()
                self._start()
                socket.send_fds(self._orders, [order], [descriptor])

    def _unanswered(self) -> WeightworksError:
        log.warning("the reader of an upload was ended by its limits, or crashed")
        return InvalidData(
            f"it cannot be read within {self._settings.inspection_seconds} seconds and "
            f"{self._settings.inspection_memory_bytes // 2**20:,} MiB of memory, or it is broken in a way that crashes "
            "its reader: write it anew, or send it in parts",
            code=TOO_DEMANDING,
        )


def _understood(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    if "failure" in answer:
        log.error("an upload could not be read:\n%s", answer["failure"])
        raise WeightworksError("the server failed to read this file; its log says more")
    if "error" not in answer:
        profile: dict[str, Any] | None = answer["profile"]
        return profile
    told = answer["error"]
    if told["class"] == "TooLarge":
        raise TooLarge(told["message"], param=told["param"], code=told["code"])
    problems = [Problem(**problem) for problem in told.get("problems", [])] or told["message"]
    raise InvalidData(problems, param=told["param"], code=told["code"])
