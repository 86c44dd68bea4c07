"""Artifacts of a job as one tar: streamed, the same bytes each time, its length and ETag known beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from tarfile import BLOCKSIZE, PAX_FORMAT, TarInfo

from fastapi import Request
from fastapi.responses import Response

from api.downloads import Download, Stretch, disposition, names, stream

MEDIA_TYPE = "application/x-tar"


def send_archive(
    request: Request, files: Sequence[Download], *, name: str, time: int, is_flat: bool = False
) -> Response:
    """Answer GET or HEAD with the files below a folder `name`, or without one, all of the same time."""
    headers = [_header(file, "" if is_flat else f"{name}/", time) for file in files]
    length = sum(len(header) + _padded(file.bytes) for header, file in zip(headers, files, strict=True))
    digest = hashlib.sha256(b"".join([*headers, *(file.sha256.encode() for file in files)])).hexdigest()
    etag = f'"{digest}"'
    told = {"ETag": etag, "Cache-Control": "private, no-cache", "Content-Disposition": disposition(f"{name}.tar")}
    if names(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=told)
    told["Content-Length"] = str(length + 2 * BLOCKSIZE)
    return stream(request, _tar(headers, files), told, media_type=MEDIA_TYPE)


def _tar(headers: Sequence[bytes], files: Sequence[Download]) -> Iterator[bytes | Stretch]:
    for header, file in zip(headers, files, strict=True):
        yield header
        yield Stretch(file.content, 0, file.bytes)
        if padding := _padded(file.bytes) - file.bytes:
            yield b"\0" * padding
    yield b"\0" * (2 * BLOCKSIZE)


def _header(file: Download, folder: str, time: int) -> bytes:
    info = TarInfo(folder + file.filename)
    info.size, info.mtime, info.mode = file.bytes, time, 0o644
    return info.tobuf(PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // BLOCKSIZE) * BLOCKSIZE
