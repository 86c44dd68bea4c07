"""Tries models out for the API process that starts it: `python -m core.serving DESCRIPTOR PARENT OPTIONS`.

The descriptor is one end of a socket pair (core/serving/server.py tells what is said there), the parent the process to
end with, and the options are JSON. It gives way to whatever else runs on the machine, and is the first to be killed
where memory is short.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import torch
import transformers

from core.processes import die_with_parent, limit_memory
from core.serving.server import Options, Server


def main(descriptor: int, parent: int, options: str) -> None:
    """Serve until the other end closes."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    read = json.loads(options)
    os.nice(read.pop("nice"))
    torch.set_num_threads(read.pop("threads"))
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    found = Options(**read)
    if found.device == "cpu":  # CUDA asks for addresses without end
        limit_memory(found.memory_bytes)
    Server(socket.socket(fileno=descriptor), found).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
