"""Large files, sent in parts: a cut costs a part, and whoever sends the same file again goes on from what arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import httpx

from weightworks.errors import Conflict, Invalid, RequestRefused, UploadDamaged
from weightworks.pages import all_pages
from weightworks.transport import Transport

PART_BYTES = 64 * 2**20
CHUNK_BYTES = 1 << 20
TIMEOUT = httpx.Timeout(60.0, read=3600.0)  # the answer comes once the whole file has been checked

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Wanted:
    """The file that is to come of an upload."""

    filename: str
    purpose: str
    mime_type: str
    bytes: int
    expires_after: Mapping[str, Any] | None = None

    def is_that_of(self, upload: Mapping[str, Any]) -> bool:
        """Whether an upload was announced for the same."""
        return all(upload.get(name) == value for name, value in vars(self).items())


def upload_in_parts(
    transport: Transport, path: Path, wanted: Wanted, *, part_bytes: int, on_bytes: OnBytes
) -> dict[str, Any]:
    """Send a file in parts of at most so many bytes; answers the file's description.

    What arrived in an earlier try, whoever made it, is not sent again. Raises UploadDamaged, Invalid, NotConnected.
    """
    told = _Told(on_bytes)
    try:
        return _upload(transport, path, wanted, _pending(transport, wanted), part_bytes=part_bytes, told=told)
    except Conflict:  # someone else has ended the upload that we went on with
        told.take_back()
        return _upload(transport, path, wanted, None, part_bytes=part_bytes, told=told)


def _pending(transport: Transport, wanted: Wanted) -> dict[str, Any] | None:
    uploads = all_pages(transport, "/v1/uploads", {"status": "pending"})
    return next((upload for upload in uploads if wanted.is_that_of(upload)), None)


def _upload(
    transport: Transport,
    path: Path,
    wanted: Wanted,
    upload: dict[str, Any] | None,
    *,
    part_bytes: int,
    told: _Told,
) -> dict[str, Any]:
    arrived = _arrived(transport, upload["id"]) if upload else {}
    upload = upload or transport.post("/v1/uploads", vars(wanted))
    size = min(part_bytes, upload["max_part_bytes"])
    md5 = hashlib.md5(usedforsecurity=False)
    part_ids = []
    with path.open("rb") as content:
        for start in range(0, wanted.bytes, size):
            part = Slice(content, start, min(size, wanted.bytes - start), told.tell)
            sha256 = part.digest(md5)
            known = arrived.get((part.length, sha256))
            if known:
                told.tell(part.length)
            part_ids.append(known.pop() if known else _send(transport, upload["id"], part, sha256))
    return _complete(transport, upload["id"], part_ids, md5.hexdigest())


def _arrived(transport: Transport, upload_id: str) -> dict[tuple[int, str], list[str]]:
    """The ids of the parts that have arrived, by size and hash: the same bytes may be there more than once."""
    found: dict[tuple[int, str], list[str]] = {}
    for part in all_pages(transport, f"/v1/uploads/{upload_id}/parts"):
        found.setdefault((part["bytes"], part["sha256"]), []).append(part["id"])
    return found


def _send(transport: Transport, upload_id: str, part: Slice, sha256: str) -> str:
    """Send a part until it has arrived as it is; answers its id."""

    def build(http: httpx.Client) -> httpx.Request:
        part.seek(0)
        files = {"data": ("data", cast(IO[bytes], part), "application/octet-stream")}
        return http.build_request("POST", f"/v1/uploads/{upload_id}/parts", files=files, timeout=TIMEOUT)

    for _ in range(1 + transport.max_retries):
        answer = transport.send(build)
        if answer["sha256"] == sha256:
            return str(answer["id"])
    raise UploadDamaged(f"a part arrives with SHA-256 {answer['sha256']}, not {sha256}: does the file change?")


def _complete(transport: Transport, upload_id: str, part_ids: list[str], md5: str) -> dict[str, Any]:
    body = {"part_ids": part_ids, "md5": md5}
    address = f"/v1/uploads/{upload_id}"
    try:
        answer = transport.send(
            lambda http: http.build_request("POST", f"{address}/complete", json=body, timeout=TIMEOUT)
        )
    except Invalid:  # nothing can be learned from the file, however often it is sent
        with suppress(RequestRefused):
            transport.post(f"{address}/cancel")
        raise
    file: dict[str, Any] = answer["file"]
    return file


class Slice:
    """A part of a file, as a file that tells how much of it has been read."""

    def __init__(self, content: BinaryIO, start: int, length: int, on_bytes: OnBytes) -> None:
        self.length = length
        self._content = content
        self._start = start
        self._on_bytes = on_bytes
        self._place = 0
        self._told = 0

    def digest(self, also: Any) -> str:
        """The SHA-256 of the part; `also`: another hash that is to be fed with it."""
        sha256 = hashlib.sha256()
        for chunk in self._chunks():
            sha256.update(chunk)
            also.update(chunk)
        return sha256.hexdigest()

    def _chunks(self) -> Iterator[bytes]:
        self._content.seek(self._start)
        left = self.length
        while left > 0 and (chunk := self._content.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        left = self.length - self._place
        self._content.seek(self._start + self._place)
        chunk = self._content.read(left if count < 0 else min(count, left))
        self._place += len(chunk)
        self._tell(self._place)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere, as httpx does to learn the length and before it reads; what was told is taken back."""
        self._place = (0, self._place, self.length)[whence] + offset
        if self._place == 0:
            self._tell(0)
        return self._place

    def tell(self) -> int:
        """Where we are."""
        return self._place

    def _tell(self, place: int) -> None:
        if place != self._told:
            self._on_bytes(place - self._told)
            self._told = place


class _Told:
    """What was told of bytes, so that it can be taken back."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._total = 0

    def tell(self, count: int) -> None:
        """So many bytes more."""
        self._total += count
        self._on_bytes(count)

    def take_back(self) -> None:
        """It starts again."""
        self.tell(-self._total)
