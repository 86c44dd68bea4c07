"""Files in: a multipart body, parsed as it comes, hashed on the way into storage, never held in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from core.errors import InvalidRequest, TooLarge

FIELD_BYTES = 64 * 1024
FLUSH_BYTES = 1 << 20


@dataclass
class Received:
    """What a body held: its fields as text, and the file's name, size and hash."""

    fields: dict[str, str]
    filename: str
    bytes: int
    sha256: str


class _Part:
    """The part being read: its headers, then its content."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.header_name = b""
        self.header_value = b""
        self.name = ""
        self.filename: str | None = None


class Receiver:
    """Feeds a multipart body's `file` into an open file and its other fields into `fields`."""

    def __init__(self, content_type: str, target: BinaryIO, *, limit: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise InvalidRequest("send the file as multipart/form-data, with the fields `file` and `purpose`")
        self.target, self.limit = target, limit
        self.fields: dict[str, bytes] = {}
        self.filename: str | None = None
        self.size = 0
        self._hash = hashlib.sha256()
        self._part = _Part()
        self._pending = bytearray()
        self._is_complete = False
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        self._parser = MultipartParser(options[b"boundary"], callbacks)

    def feed(self, chunk: bytes) -> bool:
        """Take up a piece of the body; answers whether enough is pending to be worth writing."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise InvalidRequest(f"the multipart body is malformed: {error}") from None
        return len(self._pending) >= FLUSH_BYTES

    def flush(self) -> None:
        """Hash and write what is pending; blocking."""
        self._hash.update(self._pending)
        self.target.write(self._pending)
        self._pending.clear()

    def result(self) -> Received:
        """What was received; raises InvalidRequest if the body ended early or held no file."""
        if not self._is_complete:
            raise InvalidRequest("the body ends in the middle of the upload; send it again")
        if self.filename is None:
            raise InvalidRequest("the body has no field `file` with a filename", param="file")
        if self.size == 0:
            raise InvalidRequest("the file is empty (0 bytes)", param="file", code="empty_file")
        try:
            fields = {name: value.decode() for name, value in self.fields.items()}
        except UnicodeDecodeError:
            raise InvalidRequest("the fields beside the file must be UTF-8") from None
        return Received(fields, self.filename, self.size, self._hash.hexdigest())

    def _begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = part.header_value.decode("utf-8", "replace")
        part.header_name = part.header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition", ""))
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            self.fields.setdefault(self._part.name, b"")
            return
        if self._part.name != "file" or self.filename is not None:
            raise InvalidRequest("send exactly one file, in the field `file`", param="file")
        self._part.filename = self.filename = safe_name(options[b"filename"].decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.filename is None:
            self.fields[self._part.name] += data[start:end]
            if sum(map(len, self.fields.values())) > FIELD_BYTES or len(self.fields) > 100:
                raise TooLarge("the fields beside the file are too large")
            return
        self.size += end - start
        if self.size > self.limit:
            raise TooLarge(f"the file is over the limit of {self.limit:,} bytes", param="file")
        self._pending += data[start:end]

    def _end(self) -> None:
        self._is_complete = True


def safe_name(name: str) -> str:
    """A filename to show: without folders and control characters, and not too long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character for character in last if character.isprintable()).strip()
    return shown[:200] or "file"


async def receive(request: Request, target: BinaryIO, *, limit: int) -> Received:
    """Read the whole body into `target`; raises InvalidRequest or TooLarge, and then nothing is to be kept."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit + FIELD_BYTES + 4096:
        raise TooLarge(f"the body is over the limit of {limit:,} bytes", param="file")
    receiver = Receiver(request.headers.get("content-type", ""), target, limit=limit)
    try:
        async for chunk in request.stream():
            if receiver.feed(chunk):
                await run_in_threadpool(receiver.flush)
    except ClientDisconnect:
        raise InvalidRequest("the client went away in the middle of the upload") from None
    await run_in_threadpool(receiver.flush)
    result = receiver.result()
    await run_in_threadpool(target.flush)
    return result
