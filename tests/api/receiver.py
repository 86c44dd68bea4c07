"""A receiver of webhooks on this machine: what it answers, the path says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.api.service import wait_for

PIECE = b"x" * 4096


class Received(NamedTuple):
    """A request. `headers`: by their names in small letters."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Receiver:
    """`/status/503`: that status. `/third`: 500 twice, then 200. `/redirect`: to `/redirected`. `/held`: nothing once.

    `/endless`: a body without end; `/endless_head`: a head without end; `/silent`: nothing, until `release`.
    `most_at_once`: how many waited for an answer of `/silent` at once, who hung up not counted.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.most_at_once = 0
        self.sent_bytes = 0  # of the endless body, until the other side hung up
        self.hung_up = threading.Event()
        self.release = threading.Event()
        self._waiting: list[socket.socket] = []
        self._counting = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port

    def url(self, path: str, *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/{path}"

    def at(self, path: str, count: int = 1) -> list[Received]:
        """What came to this path, once it is so much."""

        def found() -> list[Received]:
            return [one for one in list(self.requests) if one.path == f"/{path}"]

        wait_for(lambda: len(found()) >= count)
        return found()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver, seen = self, Counter()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append(Received(self.path, headers, body))
                seen[self.path] += 1
                kind, _, rest = self.path.removeprefix("/").partition("/")
                with contextlib.suppress(ConnectionError):
                    receiver.answer(self, kind, rest, seen[self.path])

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        return Handler

    def answer(self, handler: BaseHTTPRequestHandler, kind: str, rest: str, count: int) -> None:
        if kind == "silent" or (kind == "held" and count == 1):
            self._count(handler.connection)
            self.release.wait(20)
            return
        if kind == "endless_head":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self._for_ever(handler, b"x-more: and more\r\n")
            return
        statuses = {"status": int(rest or 200) if rest.isdigit() else 200, "redirect": 302}
        handler.send_response(500 if kind == "third" and count < 3 else statuses.get(kind, 200))
        if kind == "redirect":
            handler.send_header("location", self.url("redirected"))
        handler.end_headers()
        if kind == "endless":
            self._for_ever(handler, PIECE)

    def _count(self, connection: socket.socket) -> None:
        with self._counting:
            self._waiting = [*(one for one in self._waiting if not _has_hung_up(one)), connection]
            self.most_at_once = max(self.most_at_once, len(self._waiting))

    def _for_ever(self, handler: BaseHTTPRequestHandler, piece: bytes) -> None:
        try:
            while not self.release.wait(0.001):
                handler.wfile.write(piece)
                self.sent_bytes += len(piece)
        except ConnectionError:
            self.hung_up.set()

    @contextmanager
    def serving(self, context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
        """Take requests until the block ends; with TLS, if a context is given."""
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _has_hung_up(connection: socket.socket) -> bool:
    """Whether the other side has closed it, which whoever sends does before it sends the next."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:  # closed here
        return True
