"""A proxy before PostgreSQL that can lose the answer to a commit: the client cannot know whether it was made."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

SOCKET_NAME = ".s.PGSQL.5432"


class LossyProxy:
    """Listens in `folder`, as a server does, and passes everything on to the server whose socket is `target`."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.lost = threading.Event()  # set once an answer was lost
        self._target = target
        self._statement: bytes | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET_NAME))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_commit_after(self, statement: str) -> None:
        """Lose the answer to the commit of the next transaction that holds this, and cut its connection."""
        self._statement = statement.encode()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._target))
                threading.Thread(target=_Link(self, client, server).run, daemon=True).start()

    def takes(self, asked: bytes) -> bool:
        """Whether this is the commit whose answer is to be lost."""
        if self._statement is None or self._statement not in asked or b"COMMIT" not in asked:
            return False
        self._statement = None
        return True


class _Link:
    """One client's connection: what it asks goes one way, what is answered the other."""

    def __init__(self, proxy: LossyProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._asked = b""  # since the last transaction began
        self._is_lossy = False

    def run(self) -> None:
        """Pass on what both say until one of them is gone."""
        asking = threading.Thread(target=self._ask, daemon=True)
        asking.start()
        self._answer()
        asking.join()
        self._client.close()
        self._server.close()

    def _ask(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := self._client.recv(1 << 16):
                self._asked = chunk if b"BEGIN" in chunk else self._asked + chunk
                self._is_lossy = self._is_lossy or self._proxy.takes(self._asked)
                self._server.sendall(chunk)
        self._cut()

    def _answer(self) -> None:
        """Until the server is gone, or what it says is to be lost."""
        with contextlib.suppress(OSError):
            while chunk := self._server.recv(1 << 16):
                if self._is_lossy:
                    self._proxy.lost.set()
                    break
                self._client.sendall(chunk)
        self._cut()

    def _cut(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
