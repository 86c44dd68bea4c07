"""Files in: a multipart body, parsed as it comes, hashed on the way into storage, never held in memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from core.errors import InvalidRequest, TooLarge

FIELD_BYTES = 64 * 1024
OVERHEAD_BYTES = 2 * FIELD_BYTES  # what a body may have beside the file
FLUSH_BYTES = 1 << 20


@dataclass(frozen=True)
class Form:
    """What a body is to hold: one file, in the field `file`, and other fields beside it."""

    file: str
    fields: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ("sha256",)

    def __str__(self) -> str:
        return ", ".join(f"`{name}`" for name in (self.file, *self.fields))


@dataclass
class Received:
    """What a body held: its fields as text, and the file's name, size and hashes."""

    fields: dict[str, str]
    filename: str
    bytes: int
    hashes: dict[str, str]


class _Part:
    """The part being read: its headers, then its content."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.header_name = b""
        self.header_value = b""
        self.name = ""
        self.filename: str | None = None


class Receiver:
    """Feeds a multipart body's file into an open file and its other fields into `fields`."""

    def __init__(self, content_type: str, target: BinaryIO, *, form: Form, limit: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise InvalidRequest(f"send the file as multipart/form-data; what is read there: {form}")
        self.target, self.form, self.limit = target, form, limit
        self.fields: dict[str, bytes] = {}
        self.filename: str | None = None
        self.size = 0
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in form.hashes}
        self._part = _Part()
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
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)
        except FormParserError as error:
            raise InvalidRequest(f"the multipart body is malformed: {error}") from None

    def feed(self, pieces: Sequence[bytes]) -> None:
        """Parse, hash and write the next pieces of the body; blocking."""
        try:
            for piece in pieces:
                self._parser.write(piece)
        except FormParserError as error:
            raise InvalidRequest(f"the multipart body is malformed: {error}") from None

    def result(self) -> Received:
        """What was received; raises InvalidRequest if the body ended early or held no file."""
        if not self._is_complete:
            raise InvalidRequest("the body ends in the middle of the upload; send it again")
        if self.filename is None:
            raise InvalidRequest(f"the body has no field `{self.form.file}` with a filename", param=self.form.file)
        if self.size == 0:
            raise InvalidRequest("the file is empty (0 bytes)", param=self.form.file, code="empty_file")
        try:
            fields = {name: value.decode() for name, value in self.fields.items()}
        except UnicodeDecodeError:
            raise InvalidRequest("the fields beside the file must be UTF-8") from None
        hashes = {name: found.hexdigest() for name, found in self._hashes.items()}
        return Received(fields, self.filename, self.size, hashes)

    def _begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = part.header_value.decode("latin-1")
        part.header_name = part.header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition", ""))
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            if self._part.name not in self.form.fields or self._part.name in self.fields:
                name = self._part.name[:64]
                raise InvalidRequest(f"send {self.form}, each at most once; '{name}' is not expected", param=name)
            self.fields[self._part.name] = b""
            return
        if self._part.name != self.form.file or self.filename is not None:
            raise InvalidRequest(f"send exactly one file, in the field `{self.form.file}`", param=self.form.file)
        self._part.filename = self.filename = safe_name(options[b"filename"].decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.filename is None:
            self.fields[self._part.name] += data[start:end]
            if len(self.fields[self._part.name]) > FIELD_BYTES:
                raise TooLarge(f"the field '{self._part.name}' is too large", param=self._part.name)
            return
        self.size += end - start
        if self.size > self.limit:
            raise TooLarge(f"the file is over the limit of {self.limit:,} bytes", param=self.form.file)
        content = memoryview(data)[start:end]
        for found in self._hashes.values():
            found.update(content)
        self.target.write(content)

    def _end(self) -> None:
        self._is_complete = True


def safe_name(name: str) -> str:
    """A filename to show: without folders and control characters, and not too long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character for character in last if character.isprintable()).strip()
    return shown[:200] or "upload"


async def receive(request: Request, target: BinaryIO, *, form: Form, limit: int) -> Received:
    """Read the whole body into `target`; raises InvalidRequest or TooLarge, and then nothing is to be kept.

    While a thread parses, hashes and writes what came, the next is received.
    """
    receiver = Receiver(request.headers.get("content-type", ""), target, form=form, limit=limit)
    pieces: list[bytes] = []
    size, feeding = 0, asyncio.create_task(run_in_threadpool(receiver.feed, []))
    try:
        async for piece in request.stream():
            pieces.append(piece)
            size += len(piece)
            if size >= FLUSH_BYTES:
                await feeding
                feeding = asyncio.create_task(run_in_threadpool(receiver.feed, pieces))
                pieces, size = [], 0
    finally:
        # Whatever happens: the target stays open for as long as a thread writes into it.
        await asyncio.gather(feeding, return_exceptions=True)
    await feeding
    await run_in_threadpool(receiver.feed, pieces)
    received = receiver.result()
    await run_in_threadpool(_sync, target)
    return received


def _sync(target: BinaryIO) -> None:
    target.flush()
    os.fsync(target.fileno())
