"""Files out: whole or by range, with their SHA-256 as ETag, in flat memory."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from tarfile import BLOCKSIZE, GNU_FORMAT, RECORDSIZE, TarInfo
from urllib.parse import quote

import anyio
from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from core.errors import RangeNotSatisfiable

CHUNK_BYTES = 1 << 20
RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


@dataclass(frozen=True)
class Download:
    """A file to be sent, and what is known of it."""

    path: Path
    filename: str
    bytes: int
    sha256: str
    media_type: str = "application/octet-stream"


def send(request: Request, file: Download) -> Response:
    """Answer GET or HEAD: 200, 206, 304, or RangeNotSatisfiable (416)."""
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:",
    }
    if _names(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range")
    if wanted and request.headers.get("if-range", etag) == etag and (span := _span(wanted, file)):
        start, end = span
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{file.bytes}", "Content-Length": str(end - start)}
        return _stream(request, _read(file.path, start, end), 206, headers, file.media_type)
    headers["Content-Length"] = str(file.bytes)
    return _stream(request, _read(file.path, 0, file.bytes), 200, headers, file.media_type)


def _names(header: str | None, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return etag in tags or "*" in tags


def _span(wanted: str, file: Download) -> tuple[int, int] | None:
    """The half-open range that is asked for; None where the header is to be ignored (RFC 9110, 14.2)."""
    match = RANGE.match(wanted.replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, file.bytes - int(last)), file.bytes
    else:
        start, end = int(first), min(file.bytes, int(last) + 1) if last else file.bytes
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise RangeNotSatisfiable(f"the file has {file.bytes:,} bytes; the range asked for lies outside", param="range")
    return start, end


def _stream(
    request: Request, content: AsyncIterator[bytes], status: int, headers: Mapping[str, str], media_type: str
) -> Response:
    if request.method == "HEAD":
        return Response(status_code=status, headers=dict(headers), media_type=media_type)
    return StreamingResponse(content, status_code=status, headers=dict(headers), media_type=media_type)


async def _read(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        await file.seek(start)
        left = end - start
        while left > 0:
            chunk = await file.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise OSError(f"{path.name} is shorter than its row says")
            left -= len(chunk)
            yield chunk


def send_archive(request: Request, files: Iterable[Download], *, name: str) -> Response:
    """All files as one uncompressed tar, streamed; its length is known beforehand."""
    files = list(files)
    length = sum(BLOCKSIZE + _padded(file.bytes) for file in files) + 2 * BLOCKSIZE
    length = -(-length // RECORDSIZE) * RECORDSIZE
    headers = {
        "Content-Length": str(length),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}.tar",
        "Last-Modified": formatdate(usegmt=True),
    }
    return _stream(request, _tar(files, length), 200, headers, "application/x-tar")


async def _tar(files: list[Download], length: int) -> AsyncIterator[bytes]:
    sent = 0
    for file in files:
        yield _tar_header(file)
        async for chunk in _read(file.path, 0, file.bytes):
            yield chunk
        padding = _padded(file.bytes) - file.bytes
        if padding:
            yield b"\0" * padding
        sent += BLOCKSIZE + file.bytes + padding
    yield b"\0" * (length - sent)


def _tar_header(file: Download) -> bytes:
    """One block: paths of artifacts are short, sizes go up to what 64 bits hold (GNU's format)."""
    info = TarInfo(file.filename)
    info.size, info.mtime, info.mode = file.bytes, int(os.path.getmtime(file.path)), 0o644
    header = info.tobuf(GNU_FORMAT)
    assert len(header) == BLOCKSIZE, "an artifact's path is at most 100 bytes"  # noqa: S101
    return header


def _padded(size: int) -> int:
    return -(-size // BLOCKSIZE) * BLOCKSIZE
