"""Readers answer in processes of their own; the process that forks them ends when nobody has asked for long."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import StorageFull
from core.forking import raise_told

SERVER = """
import errno, sys, time
from core.errors import InvalidData
from core.forking import serve

def answer(order):
    if order["what"] == "fill":
        return len(bytearray(2**30))
    if order["what"] == "refuse":
        raise InvalidData("not this", param="dataset")
    if order["what"] == "write":
        raise OSError(errno.ENOSPC, "No space left on device")
    if order["what"] == "wait":
        time.sleep(2.5)  # longer than the server is idle
    return order["what"]

serve(int(sys.argv[1]), answer, warm_up=lambda: None, idle_seconds=2.0)
"""


def ask(orders: socket.socket, what: str) -> Any:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            socket.send_fds(orders, [b"."], [theirs.fileno()])
        ours.sendall(json.dumps({"what": what, "memory_bytes": 2**26, "seconds": 30}).encode())
        ours.shutdown(socket.SHUT_WR)
        return json.loads(ours.makefile("rb").read())


def test_orders_are_answered_until_nobody_asks() -> None:
    orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with orders, theirs:
        command = [sys.executable, "-c", SERVER, str(theirs.fileno())]
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=Path(__file__).parents[2])
        theirs.close()
        long = "x" * 2**20  # longer than a message of orders may be
        assert ask(orders, long) == {"found": long}
        refused = ask(orders, "refuse")["error"]
        assert [refused["class"], refused["param"]] == ["InvalidData", "dataset"]
        assert ask(orders, "fill")["error"]["code"] == "too_demanding"
        with pytest.raises(StorageFull):
            raise_told(ask(orders, "write")["error"])
        assert ask(orders, "wait") == {"found": "wait"}
        assert server.wait(30) == 0
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            ask(orders, "anything")
