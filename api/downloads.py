"""Files out: whole or by range, with their SHA-256 as ETag, in flat memory; where the server can, past Python.

Where storage is an object storage, whoever downloads is sent there.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.types import Receive, Scope, Send

from api import problems
from api.outlet import ZERO_COPY
from core.errors import RangeNotSatisfiable
from core.storage import Stored

RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)

Responses = dict[int | str, dict[str, Any]]
BINARY = {"type": "string", "format": "binary"}


def documented(media_type: str = "application/octet-stream") -> Responses:
    """What a download answers, for the schema."""
    content = {media_type: {"schema": BINARY}}
    return {
        200: {"description": "The whole file.", "content": content},
        206: {"description": "The range asked for.", "content": content},
        302: {"description": "It lies in an object storage: at this address, for a while, without any key."},
        304: {"description": "It is the one that If-None-Match names."},
    }


@dataclass(frozen=True)
class Download:
    """A file to be sent, and what is known of it."""

    content: Stored
    filename: str
    bytes: int
    sha256: str
    media_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Stretch:
    """The bytes of a file from `start` until before `end`."""

    content: Stored
    start: int
    end: int


def send(request: Request, file: Download) -> Response:
    """Answer GET or HEAD: 200, 206, 302, 304 or 416 (RFC 9110, 13 to 15).

    Who asks with If-Range knows our ETag, which an object storage does not: they get it through us.
    """
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(file.filename),
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:",
    }
    if names(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    start, end, status = 0, file.bytes, 200
    wanted = request.headers.get("range")
    if wanted and request.method == "GET" and request.headers.get("if-range", etag) == etag:
        span = _span(wanted, file.bytes)
        if span is not None and span[0] >= span[1]:
            error = RangeNotSatisfiable(f"the file has {file.bytes:,} bytes; the range lies outside", param="range")
            return problems.respond(error, {"Content-Range": f"bytes */{file.bytes}"})
        if span is not None:
            (start, end), status = span, 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.bytes}"
    if "if-range" not in request.headers:
        as_told = {"disposition": headers["Content-Disposition"], "media_type": file.media_type}
        if (address := file.content.address(request.method, **as_told)) is not None:
            return RedirectResponse(address, 302, headers={"Cache-Control": "private, no-store"})
    headers["Content-Length"] = str(end - start)
    return stream(request, [Stretch(file.content, start, end)], headers, status=status, media_type=file.media_type)


def names(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match names the ETag."""
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return etag in tags or "*" in tags


def disposition(filename: str) -> str:
    """The header that has a browser save the file under its name."""
    return f"attachment; filename*=UTF-8''{quote(filename.rpartition('/')[2], safe='')}"


def _span(wanted: str, size: int) -> tuple[int, int] | None:
    """The half-open range that is asked for, empty if it cannot be met; None where the header is to be ignored."""
    match = RANGE.fullmatch(wanted)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def stream(
    request: Request,
    parts: Iterable[bytes | Stretch],
    headers: Mapping[str, str],
    *,
    status: int = 200,
    media_type: str,
) -> Response:
    """The answer to GET, or its head. `headers` tell the length of all parts together."""
    if request.method == "HEAD":
        return Response(status_code=status, headers=dict(headers), media_type=media_type)
    if ZERO_COPY in request.scope.get("extensions", {}):
        return ZeroCopyResponse(parts, status_code=status, headers=dict(headers), media_type=media_type)
    return StreamingResponse(_read_all(parts), status_code=status, headers=dict(headers), media_type=media_type)


class ZeroCopyResponse(Response):
    """Has the server send stretches of files by itself (sendfile)."""

    def __init__(self, parts: Iterable[bytes | Stretch], **options: Any) -> None:
        super().__init__(**options)
        self.parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then part after part."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self.parts:
            if isinstance(part, bytes):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            elif part.content.path is None:
                async for chunk in iterate_in_threadpool(part.content.chunks(part.start, part.end)):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            elif part.start < part.end:
                with await run_in_threadpool(part.content.path.open, "rb") as file:
                    told = {"file": file, "offset": part.start, "count": part.end - part.start, "more_body": True}
                    await send({"type": ZERO_COPY, **told})
        await send({"type": "http.response.body", "body": b""})


async def _read_all(parts: Iterable[bytes | Stretch]) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        async for chunk in iterate_in_threadpool(part.content.chunks(part.start, part.end)):
            yield chunk
