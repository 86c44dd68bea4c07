"""Files: data sets, and base models, that jobs start from."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import httpx

from weightworks.downloads import fetch
from weightworks.pages import all_pages
from weightworks.records import read
from weightworks.transport import Transport
from weightworks.uploads import PART_BYTES, TIMEOUT, OnBytes, Wanted, upload_in_parts

DATA_SET, MODEL = "dataset", "base-model"


@dataclass(frozen=True)
class File:
    """An uploaded file. `profile` says what was recognised in it: how many examples, which columns, what classes."""

    id: str
    filename: str
    bytes: int
    created_at: int
    sha256: str
    purpose: str = ""
    expires_at: int | None = None
    kind: str | None = None
    profile: dict[str, Any] | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


class Files:
    """`/v1/files`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: str | Path,
        *,
        purpose: str = DATA_SET,
        filename: str | None = None,
        keep_seconds: int | None = None,
        part_bytes: int = PART_BYTES,
        on_bytes: OnBytes | None = None,
    ) -> File:
        """Send a file up. Raises Invalid, with what is wrong by line or member, if nothing can be learned from it.

        One of more than `part_bytes` goes in parts: after a cut, or if this process ends, the next `upload` of the
        same file goes on from what arrived. `keep_seconds`: the file is forgotten by itself then; from an hour to
        thirty days. `on_bytes` is told, now and then, how many more bytes have been sent; a negative number if some
        are sent again.
        """
        path = Path(path)
        name = filename or path.name
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        expiry = {} if keep_seconds is None else {"anchor": "created_at", "seconds": keep_seconds}
        if (size := path.stat().st_size) > part_bytes:
            wanted = Wanted(name, purpose, media_type, size, expiry or None)
            tell = on_bytes or (lambda count: None)
            found = upload_in_parts(self._transport, path, wanted, part_bytes=part_bytes, on_bytes=tell)
            return read(File, found)
        fields = {"purpose": purpose, **{f"expires_after[{field}]": str(value) for field, value in expiry.items()}}
        with path.open("rb") as content:
            counted = cast(IO[bytes], Counted(content, on_bytes or (lambda count: None)))

            def build(http: httpx.Client) -> httpx.Request:
                counted.seek(0)
                files = {"file": (name, counted, media_type)}
                return http.build_request("POST", "/v1/files", data=fields, files=files, timeout=TIMEOUT)

            return read(File, self._transport.send(build))

    def list(self) -> Iterator[File]:
        """All files of the project, newest first."""
        return (read(File, data) for data in all_pages(self._transport, "/v1/files"))

    def get(self, file_id: str) -> File:
        """One file's description."""
        return read(File, self._transport.get(f"/v1/files/{file_id}"))

    def download(self, file_id: str, target: str | Path, *, on_bytes: OnBytes | None = None) -> Path:
        """Bring a file's content home; `target` is its new path, or a folder for it."""
        file = self.get(file_id)
        target = Path(target)
        if target.is_dir():
            target = target / Path(file.filename).name
        url = f"/v1/files/{file_id}/content"
        return fetch(self._transport, url, target, size=file.bytes, sha256=file.sha256, on_bytes=on_bytes)

    def delete(self, file_id: str) -> None:
        """Delete a file; models that were made from it stay."""
        self._transport.delete(f"/v1/files/{file_id}")


class Counted:
    """A file that tells how much of it has been read."""

    def __init__(self, content: BinaryIO, on_bytes: OnBytes) -> None:
        self._content = content
        self._on_bytes = on_bytes
        self._told = 0

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        chunk = self._content.read(count)
        self._told += len(chunk)
        self._on_bytes(len(chunk))
        return chunk

    def fileno(self) -> int:
        """The descriptor, by which httpx learns the length."""
        return self._content.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere, as httpx does before it reads; what was told is taken back."""
        place = self._content.seek(offset, whence)
        if place != self._told:
            self._on_bytes(place - self._told)
            self._told = place
        return place

    def tell(self) -> int:
        """Where we are."""
        return self._content.tell()
