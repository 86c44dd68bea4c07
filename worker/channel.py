"""Messages between two processes: JSON objects, one a line, over a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any

READ_BYTES = 1 << 16

Message = Mapping[str, Any]


class Channel:
    """One end of a socket pair. A send that takes longer than `send_seconds` raises TimeoutError."""

    def __init__(self, end: socket.socket, *, send_seconds: float | None = None) -> None:
        self.socket = end
        self.socket.settimeout(send_seconds)
        self._received = b""

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self.socket.fileno()

    def send(self, *messages: Message) -> None:
        """Send; raises OSError where the other end is gone."""
        self.socket.sendall(_lines(messages))

    def receive(self) -> list[dict[str, Any]]:
        """What has come, waiting if nothing has; raises EOFError once the other end is closed."""
        try:
            chunk = self.socket.recv(READ_BYTES)
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise EOFError
        *lines, self._received = (self._received + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


def _lines(messages: Iterable[Message]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)
