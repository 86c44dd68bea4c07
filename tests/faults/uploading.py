"""A large file in parts against APIs that are killed, and what must hold of files and contents at every moment."""

from __future__ import annotations

import contextlib
import hashlib
import io
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from sqlalchemy import select

from core.jobs.models.files import File
from core.storage import file_key
from tests.faults.parts import PATIENCE, until
from tests.faults.stack import ADMIN_KEY, Stack

BOUNDARY = "the-boundary"


def numbers(megabytes: int, *, seed: int = 0) -> bytes:
    """A data set of its own."""
    content = io.BytesIO()
    np.save(content, np.random.default_rng(seed).random((256 * megabytes, 1024), dtype=np.float32))
    return content.getvalue()


class PartedUpload:
    """An upload, announced, whose parts are sent to whichever API answers."""

    def __init__(self, stack: Stack, content: bytes, *, parts: int) -> None:
        self.stack = stack
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        size = -(-len(content) // parts)
        self.pieces = [content[start : start + size] for start in range(0, len(content), size)]
        told = {"filename": "numbers.npy", "purpose": "dataset", "bytes": len(content)}
        self.id = str(stack.request("POST", "/v1/uploads", json=told).json()["id"])

    def send(self, piece: bytes) -> str:
        """The part's id."""
        answer = self.stack.request("POST", f"/v1/uploads/{self.id}/parts", files={"data": piece})
        return str(answer.raise_for_status().json()["id"])

    def arrived(self) -> dict[str, str]:
        """The ids of the parts that have arrived, by their SHA-256."""
        told = self.stack.request("GET", f"/v1/uploads/{self.id}/parts", params={"limit": 100}).json()
        return {part["sha256"]: part["id"] for part in told["data"]}

    def send_what_is_missing(self) -> list[str]:
        """As a client does that goes on after a cut; answers the ids of all parts, in order."""
        arrived = self.arrived()
        return [arrived.get(hashlib.sha256(piece).hexdigest()) or self.send(piece) for piece in self.pieces]

    def complete(self, part_ids: Sequence[str], *, api: int | None = None, **changes: Any) -> httpx.Response:
        """By this API, or by whichever answers."""
        address, body = f"/v1/uploads/{self.id}/complete", {"part_ids": part_ids, **changes}
        if api is None:
            return self.stack.request("POST", address, json=body)
        # What was started anew imports what it inspects with first, and takes one after the other.
        return self.stack.http.post(f"{self.stack.apis.addresses[api]}{address}", json=body, timeout=PATIENCE)

    @contextmanager
    def half_a_part(self, *, api: int) -> Iterator[None]:
        """A part of which half has been sent, and has come to the disk."""
        piece = self.pieces[0]
        before = set(incoming(self.stack))
        with socket.create_connection(("127.0.0.1", urlsplit(self.stack.apis.addresses[api]).port or 0)) as connection:
            connection.sendall(
                f"POST /v1/uploads/{self.id}/parts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\n"
                f"content-type: multipart/form-data; boundary={BOUNDARY}\r\ncontent-length: {len(piece) + 500}\r\n\r\n"
                f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="data"; filename="a"\r\n\r\n'.encode()
                + piece[: len(piece) // 2]
            )
            until(lambda: set(incoming(self.stack)) - before, what="for half a part")
            yield


def incoming(stack: Stack) -> list[str]:
    """What is being streamed in, or was."""
    return [path.name for path in stack.storage.incoming.iterdir()]


def parts_in_storage(stack: Stack) -> set[str]:
    """The ids of the parts whose content is there."""
    folder = stack.storage.root / "parts"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def half_stored(stack: Stack) -> list[str]:
    """Files without their whole content, and contents that are not what their name says."""
    rows: list[tuple[str, str]] = stack.read(lambda session: session.execute(select(File.id, File.sha256)).all())
    wrong = [f"{file_id} has no content" for file_id, sha256 in rows if not _path(stack, sha256).exists()]
    for found in stack.storage.files_below("files"):
        path = stack.storage.path(found.key)
        if len(path.name) == 64:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                    wrong.append(f"the content {path.name} is another")
    return wrong


def files_with(stack: Stack, sha256: str) -> list[str]:
    """The ids of the files that have this content."""
    query = select(File.id).where(File.sha256 == sha256)
    return list(stack.read(lambda session: session.scalars(query).all()))


def _path(stack: Stack, sha256: str) -> Path:
    return stack.storage.path(file_key(sha256))


def kill_after(stack: Stack, seconds: float, *, api: int) -> None:
    """`kill -9` of an API process, in a moment."""
    time.sleep(seconds)
    stack.apis.kill(api)
