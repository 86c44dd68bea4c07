"""Reads what strangers sent in processes of their own: `python -m core.inspecting DESCRIPTOR`.

A file may be made to fill the memory of its reader, to keep it busy, or to crash it. So each is read in a process that
is forked for it, with a limit on its memory and its time, and no credentials. The descriptor is one end of a socket
pair that keeps messages apart. Each message is an order as JSON, with a descriptor for the answer: the profile, the
error that whoever sent the file is told, or what went wrong here. Whoever answers nothing was ended by a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.data.model_archive import inspect_model_archive
from core.data.profile import inspect
from core.errors import InvalidData, WeightworksError
from core.processes import die_with_parent, limit_memory

ORDER_BYTES = 2**16
TOO_DEMANDING = "too_demanding"
ANSWER_BYTES = 8 * 2**20  # a profile becomes a row, and is read with every list of files


def main(descriptor: int) -> None:
    """Import what reading takes, then fork a reader for each order until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a reader ended
    import core.data.inspection  # noqa: F401  ahead of time

    orders = socket.socket(fileno=descriptor)
    while True:
        line, descriptors, _, _ = socket.recv_fds(orders, ORDER_BYTES, 1)
        if not line:
            return
        _fork(json.loads(line), descriptors[0], orders)
        os.close(descriptors[0])


def _fork(order: Mapping[str, Any], answer: int, orders: socket.socket) -> None:
    server = os.getpid()
    if os.fork():
        return
    try:
        die_with_parent(server)
        orders.close()
        _limit(memory_bytes=order["memory_bytes"], seconds=order["seconds"])
        content = json.dumps(_read(order))
        if len(content) > ANSWER_BYTES:
            content = json.dumps(_told(InvalidData("the names of its columns and classes are too many, or too long")))
        with open(answer, "w", closefd=False) as file:
            file.write(content)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)  # not the interpreter's way out: nothing of the server's is to be undone here


def _limit(*, memory_bytes: int, seconds: int) -> None:
    """Let this process take so much more memory, and end after so long whatever it is at."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")
    limit_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def _read(order: Mapping[str, Any]) -> dict[str, Any]:
    path, limit = Path(order["path"]), order["max_unpacked_bytes"]
    warnings.simplefilter("ignore")  # Pillow and NumPy warn of what they mend
    try:
        if order["is_model"]:
            inspect_model_archive(path, max_unpacked_bytes=limit)
            return {"profile": None}
        return {"profile": inspect(path, max_unpacked_bytes=limit).as_dict()}
    except MemoryError:
        return _told(too_demanding(order["memory_bytes"]))
    except WeightworksError as error:
        return _told(error)
    except Exception:
        return {"failure": traceback.format_exc()}


def _told(error: WeightworksError) -> dict[str, Any]:
    return {"error": {"class": type(error).__name__, **error.as_dict()}}


def too_demanding(memory_bytes: int) -> InvalidData:
    """What is said of a file that takes too much to read."""
    return InvalidData(
        f"reading it takes more than {memory_bytes // 2**20:,} MiB of memory: shorten its longest lines, values or "
        "names, or send it in parts",
        code=TOO_DEMANDING,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
