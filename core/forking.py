"""Answers orders in processes of their own: each in one that is forked for it, with limits and no credentials.

What strangers sent may be made to fill the memory of its reader, to keep it busy, or to crash it. So whoever reads it
is forked from a process that has imported what reading takes. The descriptor is one end of a socket pair that keeps
messages apart: each message brings a descriptor, on which an order as JSON comes, and its answer goes back: what was
found, the error that whoever sent the file is told, or what went wrong here. Whoever answers nothing was ended by a
limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import InvalidData, InvalidSpec, Problem, StorageFull, TooLarge, Unavailable, WeightworksError
from core.processes import die_with_parent, limit_memory
from core.storage import refusal_of

TOO_DEMANDING = "too_demanding"
ANSWER_BYTES = 8 * 2**20  # a profile becomes a row, and is read with every list of files

Order = Mapping[str, Any]


def serve(
    descriptor: int,
    answer: Callable[[Order], Any],
    *,
    warm_up: Callable[[], None],
    idle_seconds: float | None = None,
) -> None:
    """Fork a reader for each order until the other end closes; `warm_up` imports ahead of time what they need.

    `idle_seconds`: without an order and a reader for so long, this ends too.

    Every order says what it may take: `seconds`, and `memory_bytes`, null if as much as there is. `answer`: what it
    found, as JSON can hold it; the WeightworksErrors that it raises are told.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a reader ended
    warm_up()
    orders = socket.socket(fileno=descriptor)
    orders.settimeout(idle_seconds)
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(orders, 1, 1)
        except TimeoutError:
            if not _has_readers():
                orders.shutdown(socket.SHUT_RD)  # whoever sends from now on is told; what was sent before is answered
            continue
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as asked:
            _fork(answer, asked, orders)


def _has_readers() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def _fork(answer: Callable[[Order], Any], asked: socket.socket, orders: socket.socket) -> None:
    server = os.getpid()
    if os.fork():
        return
    try:
        die_with_parent(server)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # what is run here may ask how its own children ended
        orders.close()
        with asked.makefile("rb") as file:
            order = json.load(file)
        _limit(memory_bytes=order["memory_bytes"], seconds=order["seconds"])
        content = json.dumps(_answered(answer, order)).encode()
        if len(content) > ANSWER_BYTES:
            told = _told(InvalidData("the names of its columns and classes are too many, or too long"))
            content = json.dumps(told).encode()
        asked.sendall(content)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)  # not the interpreter's way out: nothing of the server's is to be undone here


def _limit(*, memory_bytes: int | None, seconds: float) -> None:
    """Let this process take so much more memory, and end after so long whatever it is at."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")
    if memory_bytes is not None:
        limit_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _answered(answer: Callable[[Order], Any], order: Order) -> dict[str, Any]:
    try:
        return {"found": answer(order)}
    except MemoryError:
        return _told(too_demanding(order["memory_bytes"]))
    except WeightworksError as error:
        return _told(error)
    except Exception as error:
        refusal = refusal_of(error)
        return {"failure": traceback.format_exc()} if refusal is None else _told(refusal)


def _told(error: WeightworksError) -> dict[str, Any]:
    return {"error": {"class": type(error).__name__, **error.as_dict()}}


def too_demanding(memory_bytes: int) -> InvalidData:
    """What is said of a file that takes too much to read."""
    return InvalidData(
        f"reading it takes more than {memory_bytes // 2**20:,} MiB of memory: shorten its longest lines, values or "
        "names, or send it in parts",
        code=TOO_DEMANDING,
    )


def raise_told(told: Mapping[str, Any]) -> None:
    """Raise what a reader told of, as it was raised there."""
    about = {"param": told["param"], "code": told["code"]}
    for kind in (TooLarge, InvalidSpec, StorageFull, Unavailable):
        if told["class"] == kind.__name__:
            raise kind(told["message"], **about)
    raise InvalidData([Problem(**problem) for problem in told.get("problems", [])] or told["message"], **about)
