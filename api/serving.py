"""Serves the application over HTTP with an end to what a client may take: time and bytes for a request's head.

uvicorn by itself waits for ever for the rest of a head, and keeps any number of headers. Nor does it know ASGI's
extension by which a file goes straight from the page cache to the client.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import is_ssl

from api.outlet import ZERO_COPY, Outlet
from core.errors import InvalidRequest
from core.jobs.ids import new_id
from core.settings import settings

HEAD_BYTES = 64 * 1024
GRACE_SECONDS = 3
PIECES = "weightworks.pieces"  # where the scope keeps what has come of the body, until the application takes it


def run(app: Any, **options: Any) -> None:
    """Serve until told to stop; `options`: uvicorn's `host` and `port`, or `fd`."""
    uvicorn.run(
        app, http=Protocol, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_SECONDS, **options
    )


class Protocol(HttpToolsProtocol):
    """A connection. Its first request, and each after it, is to be told within `head_seconds` and HEAD_BYTES."""

    _timer: asyncio.TimerHandle | None = None
    _is_in_head = True
    _heads = 0  # that have begun
    _head_bytes = 0  # of the last, beyond the piece that it began in
    _outlet: Outlet | None = None  # while a file is being sent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._close_after(settings().head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_timer()
        if self._outlet is not None:
            self._outlet.lose()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that goes on behind this is measured."""
        heads = self._heads
        super().data_received(data)
        if self._is_in_head and self._heads == heads and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self._refuse(status, f"the address and the headers are larger than {HEAD_BYTES:,} bytes")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0
        self._heads += 1
        self._close_after(settings().head_seconds)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_in_head = False
        self._stop_timer()
        scope: Any = self.scope
        scope[PIECES] = []
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body as it came: uvicorn would copy it twice before the application has it."""
        if (self.parser.should_upgrade() and self._should_upgrade()) or self.cycle.response_complete:
            return
        scope: Any = self.cycle.scope
        pieces = scope[PIECES]
        pieces.append(body)
        if sum(map(len, pieces)) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A client that goes on with a body that was answered already has a moment left to end it."""
        super().on_response_complete()
        if self.cycle.more_body:
            self._close_after(self.timeout_keep_alive)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, as all errors are told here."""
        self._refuse(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1.1 request")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Let the application send files, unless what is sent has to be encrypted here."""
        if not is_ssl(self.transport):
            cycle.scope["extensions"] = {ZERO_COPY: {}}
        super()._start_asgi_task(cycle, partial(self._serve, cycle, app))

    async def _serve(self, cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Any) -> None:
        async def receive_pieces() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                message["body"] = b"".join(scope[PIECES])
                scope[PIECES].clear()
            return message

        async def send_any(message: Any) -> None:
            if message["type"] != ZERO_COPY:
                await send(message)
            elif not cycle.disconnected:
                await self._send_file(cycle, message["file"].fileno(), message["offset"], message["count"])

        await app(scope, receive_pieces, send_any)

    async def _send_file(self, cycle: RequestResponseCycle, file: int, start: int, count: int) -> None:
        """Send a part of an open file as the next part of a body whose length was told."""
        if count > cycle.expected_content_length:
            raise RuntimeError("the file is longer than what is left of the Content-Length")
        self.transport.set_write_buffer_limits(0)  # what was written before goes first, to the last byte
        await self.flow.drain()
        self.transport.set_write_buffer_limits()
        self._outlet = Outlet(self.transport)
        try:
            await self._outlet.send(file, start, count)
            cycle.expected_content_length -= count
        except ConnectionError:
            cycle.disconnected = True
            self.transport.abort()
        finally:
            self._outlet.close()
            self._outlet = None

    def _close_after(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._time_is_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _time_is_up(self) -> None:
        if self._is_in_head and self.cycle is not None and not self.cycle.response_complete:
            self._close_after(settings().head_seconds)  # requests before it are being answered: we do not read on
        elif self._is_in_head and self.scope is not None:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the headers came too slowly; send the request again")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer without the application, and hang up."""
        error = {**InvalidRequest(message).as_dict(), "code": status.name.lower()}
        body = json.dumps({"error": error}).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {new_id('req')}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
