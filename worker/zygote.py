"""The fork server: imports all that training needs ahead of time, touches no device, and forks a trainer a job.

It runs as `python -m worker.zygote SOCKET PARENT`, with one end of a socket pair. It says `ready`; then each line that
comes in, with two descriptors (control socket, output pipe), is a trainer to fork; it answers `forked` and later
`ended`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from core.processes import die_with_parent
from worker.channel import Channel

REQUEST_BYTES = 4096
READY, FORKED, ENDED = "ready", "forked", "ended"


def main(descriptor: int, parent: int) -> None:
    """Import, say so, and fork until the supervisor is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a service manager sends them to all: the supervisor ends this one
        signal.signal(number, signal.SIG_IGN)
    die_with_parent(parent)
    from core.warming import warm_up  # which takes a while: the process is safe from signals by now

    warm_up("worker.trainer")
    server = ForkServer(Channel(socket.socket(fileno=descriptor)))
    server.channel.send({"type": READY, "has_gpu": _has_gpu(), "methods": _method_names()})
    server.serve()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()  # by NVML (see PYTORCH_NVML_BASED_CUDA_CHECK), so that CUDA stays untouched


def _method_names() -> list[str]:
    from core.catalog import methods

    return list(methods())


class ForkServer:
    """Forks on request and tells when a child has ended."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._wakeup, wake = socket.socketpair()
        for end in (self._wakeup, wake):
            end.setblocking(False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until the other end closes."""
        selector = selectors.DefaultSelector()
        selector.register(self.channel, selectors.EVENT_READ, self._take_request)
        selector.register(self._wakeup, selectors.EVENT_READ, self._reap)
        with contextlib.suppress(EOFError):
            while True:
                for key, _ in selector.select():
                    key.data()

    def _take_request(self) -> None:
        line, descriptors, _, _ = socket.recv_fds(self.channel.socket, REQUEST_BYTES, 2)
        if not line:
            raise EOFError
        control, output = descriptors
        pid = self._fork(json.loads(line)["run"], control, output)
        os.close(control)
        os.close(output)
        self.channel.send({"type": FORKED, "pid": pid})

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakeup.recv(REQUEST_BYTES)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self.channel.send({"type": ENDED, "pid": ended[0], "status": ended[1]})

    def _fork(self, run: str, control: int, output: int) -> int:
        zygote = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code: Any = 1
        try:
            os.setsid()
            die_with_parent(zygote)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            for end in (self.channel, self._wakeup, self._wake):
                end.close()
            os.environ["WEIGHTWORKS_RUN"] = run
            _be_killed_first()
            _redirect_output(output)
            code = _train(control)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # not the interpreter's way out: nothing of the zygote's is to be undone here
        return 0


def _be_killed_first() -> None:
    """Where memory runs out, have the kernel end the trainer rather than what supervises it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _redirect_output(output: int) -> None:
    """Send all output, that of C libraries and of children too, into the pipe, line by line."""
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(output)
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )


def _train(control: int) -> int:
    from worker.trainer import Trainer

    return Trainer(Channel(socket.socket(fileno=control))).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
