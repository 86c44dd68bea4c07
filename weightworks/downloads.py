"""Files brought home: whole, or gone on with where a download was cut, and never other than their SHA-256 says."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import httpx

from weightworks.errors import DownloadDamaged, NotConnected
from weightworks.transport import Transport, pause

PARTIAL = ".partial"

Progress = Callable[[int], None]


def fetch(
    transport: Transport, url: str, target: Path, *, size: int, sha256: str, on_bytes: Progress | None = None
) -> Path:
    """Bring `url` to `target`, which is whole or absent; a file that is there already is not fetched again.

    `on_bytes` is told how many more bytes are home. Raises DownloadDamaged, NotConnected.
    """
    tell = on_bytes or (lambda count: None)
    if target.is_file() and target.stat().st_size == size and digest(target) == sha256:
        tell(size)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    for is_last in (False, True):
        _complete(transport, url, partial, size=size, sha256=sha256, tell=tell)
        found = digest(partial)
        if found == sha256:
            partial.replace(target)
            return target
        tell(-partial.stat().st_size)
        partial.unlink()
        if is_last:
            break
    raise DownloadDamaged(f"{target.name} arrived with SHA-256 {found}, not {sha256}")


def _complete(transport: Transport, url: str, partial: Path, *, size: int, sha256: str, tell: Progress) -> None:
    """Append to the partial file until it is as long as it should be, over as many connections as it takes."""
    if partial.exists() and partial.stat().st_size > size:
        partial.unlink()
    tell(partial.stat().st_size if partial.exists() else 0)
    tried, before = 0, -1
    while (have := partial.stat().st_size if partial.exists() else 0) < size or not partial.exists():
        tried = 0 if have > before else tried + 1
        before = have
        if tried > transport.max_retries:
            raise DownloadDamaged(f"the server sends {have:,} bytes of {partial.stem}, not {size:,}")
        try:
            _append(transport, url, partial, have=have, sha256=sha256, tell=tell)
        except httpx.TransportError as error:
            if tried >= transport.max_retries:
                raise NotConnected(f"the download of {partial.stem} was cut: {error}") from error
            time.sleep(pause(tried))


def _append(transport: Transport, url: str, partial: Path, *, have: int, sha256: str, tell: Progress) -> None:
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'}
    with transport.stream(url, headers=headers) as response, partial.open("ab") as file:
        if have and response.status_code != 206:  # all of it comes, from the beginning
            file.truncate(0)
            tell(-have)
        for chunk in response.iter_bytes():  # as they come: gathered ones would be lost with the connection
            file.write(chunk)
            tell(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(folder: Path, path: str) -> Path:
    """Where an artifact belongs below `folder`; raises DownloadDamaged for a path that leads out of it."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\\" in path or "\0" in path:
        raise DownloadDamaged(f"the server names a file outside its folder: {path!r}")
    return folder.joinpath(*parts.parts)
