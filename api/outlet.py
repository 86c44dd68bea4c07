"""The way of files into a connection: from the page cache into its socket, past Python and past its transport."""

from __future__ import annotations

import asyncio
import os
import select

ZERO_COPY = "http.response.zerocopysend"  # ASGI's extension: a message names a file instead of holding its bytes
PIECE_BYTES = 16 << 20  # what one turn in a thread sends at most, so that many downloads share the threads
PATIENCE_MILLISECONDS = 20  # how long such a turn waits for a client: a quick one is there again at once


class Outlet:
    """A second descriptor of a connection's socket. The transport must have nothing left to write.

    A second one, because loops let nobody wait for a transport's own descriptor.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = os.dup(transport.get_extra_info("socket").fileno())
        self._waiter: asyncio.Future[None] | None = None
        self._is_lost = False

    async def send(self, file: int, start: int, count: int) -> None:
        """Send `count` bytes of an open file from `start` on; raises ConnectionError, or EOFError for a shorter file.

        In threads, because a file that is not in the page cache keeps whoever sends it waiting for the disk.
        """
        end = start + count
        while start < end:
            turn = self._loop.run_in_executor(None, _push, self._socket, file, start, end)
            try:
                start = await asyncio.shield(turn)
            except asyncio.CancelledError:
                await asyncio.wait([turn])  # until then its descriptors must stay open
                raise
            if start < end:
                await self._until_writable()

    async def _until_writable(self) -> None:
        if self._is_lost:
            raise ConnectionResetError
        self._waiter = self._loop.create_future()
        self._loop.add_writer(self._socket, self._wake)
        try:
            await self._waiter
        finally:
            self._loop.remove_writer(self._socket)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def lose(self) -> None:
        """Wait no longer for a client that is gone."""
        self._is_lost = True
        self._wake()

    def close(self) -> None:
        """Give the descriptor back; the connection stays."""
        os.close(self._socket)


def _push(socket: int, file: int, start: int, end: int) -> int:
    """Send until the client keeps us waiting, the end, or a piece further; answers how far it came."""
    stop = min(end, start + PIECE_BYTES)
    waiting = select.poll()
    waiting.register(socket, select.POLLOUT)
    while start < stop:
        try:
            sent = os.sendfile(socket, file, start, stop - start)
        except BlockingIOError:
            if not waiting.poll(PATIENCE_MILLISECONDS):
                break
            continue
        if sent == 0:
            raise EOFError("a file is shorter than its row says")
        start += sent
    return start
