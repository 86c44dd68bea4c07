"""Files out: past Python where the server can, the same bytes where it cannot, to clients of every temper."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from fastapi import Request

from api.archives import send_archive
from api.downloads import Download, send
from api.outlet import ZERO_COPY, Outlet
from api.serving import Protocol
from core.storage.disk import StoredFile
from tests.api.service import wait_for

CONTENT = os.urandom(24 * 2**20)


@dataclass
class Site:
    """Hands out one file at /file, twice in a tar at /tar, and one that is shorter than is told at /short."""

    file: Download
    offers_zero_copy: bool = True
    copied: int = 0  # bytes of bodies that came out of the application
    sent: int = 0  # bytes of files that the server sent by itself
    url: str = ""

    async def __call__(self, scope: Any, receive: Any, send_to_client: Any) -> None:
        if not self.offers_zero_copy:
            del scope["extensions"]

        async def count(message: Any) -> None:
            self.copied += len(message.get("body", b""))
            self.sent += message.get("count", 0) if message["type"] == ZERO_COPY else 0
            await send_to_client(message)

        await self.answer(Request(scope, receive))(scope, receive, count)

    def answer(self, request: Request) -> Any:
        if request.url.path == "/tar":
            return send_archive(request, [self.file, self.file], name="all", time=0)
        if request.url.path == "/short":
            return send(request, Download(self.file.content, "short", len(CONTENT) + 1, self.file.sha256))
        return send(request, self.file)

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=20)


@pytest.fixture(params=["uvloop", "asyncio"])
def site(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    path = tmp_path / "weights"
    path.write_bytes(CONTENT)
    site = Site(Download(StoredFile(path), "weights", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()))
    options = {"http": Protocol, "loop": request.param, "lifespan": "off", "log_config": None, "access_log": False}
    server = uvicorn.Server(uvicorn.Config(site, **options))
    listener = socket.create_server(("127.0.0.1", 0))
    site.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
    thread.start()
    yield site
    server.should_exit = True
    thread.join()
    listener.close()
    errors = [record for record in caplog.get_records("call") if record.levelname == "ERROR"]
    assert len(errors) == (request.node.originalname == "test_a_file_that_is_too_short_is_cut_off")


def read_all(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def test_no_byte_of_a_file_passes_through_python(site: Site) -> None:
    with httpx.Client(base_url=site.url) as http:
        assert http.get("/file").content == CONTENT
        assert (site.copied, site.sent) == (0, len(CONTENT))
        part = http.get("/file", headers={"range": "bytes=100-20000099"})
        assert (part.status_code, part.content) == (206, CONTENT[100:20_000_100])
        assert (site.copied, site.sent) == (0, len(CONTENT) + 20_000_000)
        assert http.head("/file").content == b""
        assert http.get("/file", headers={"range": "bytes=7-7"}).content == CONTENT[7:8]


def test_another_server_gets_the_same_bytes(site: Site) -> None:
    with httpx.Client(base_url=site.url) as http:
        tar = http.get("/tar").content
        assert site.copied == len(tar) - 2 * len(CONTENT)
        site.offers_zero_copy = False
        assert http.get("/tar").content == tar
        assert http.get("/file", headers={"range": "bytes=-5"}).content == CONTENT[-5:]
        assert http.get("/file").content == CONTENT


def test_requests_that_were_sent_at_once_are_answered_in_turn(site: Site) -> None:
    with site.connect() as connection:
        wanted = [b"Range: bytes=0-9999999", b"Range: bytes=5-6", b"Connection: close"]
        connection.sendall(b"".join(b"GET /file HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n" for header in wanted))
        answers = read_all(connection)
    bodies = []
    while answers:
        head, _, answers = answers.partition(b"\r\n\r\n")
        told = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(told[b"content-length"])
        bodies.append(answers[:length])
        answers = answers[length:]
    assert bodies == [CONTENT[:10_000_000], CONTENT[5:7], CONTENT]


def test_slow_clients_get_everything_and_keep_nobody_waiting(site: Site) -> None:
    slow = [site.connect() for _ in range(12)]  # more than there are threads
    for connection in slow:
        connection.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    wait_for(lambda: site.sent == 12 * len(CONTENT))
    assert httpx.get(f"{site.url}/file").content == CONTENT
    for connection in slow:
        with connection:
            assert read_all(connection).endswith(b"\r\n\r\n" + CONTENT)


def test_clients_that_leave_leave_nothing_behind(site: Site) -> None:
    process = psutil.Process()
    httpx.get(f"{site.url}/file")
    before = process.num_fds()
    for _ in range(5):
        sent = site.sent
        with site.connect() as connection:
            connection.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(100)
            wait_for(lambda sent=sent: site.sent > sent)
            time.sleep(0.05)  # its socket is full by now
    wait_for(lambda: process.num_fds() <= before)
    assert httpx.get(f"{site.url}/file").content == CONTENT


def test_a_file_that_is_too_short_is_cut_off(site: Site) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{site.url}/short")
    assert httpx.get(f"{site.url}/file").content == CONTENT


def test_an_outlet_that_is_given_up_waits_for_its_thread(tmp_path: Path) -> None:
    """What is cancelled while a thread sends must not close the descriptors under it."""
    (tmp_path / "file").write_bytes(CONTENT)

    async def give_up() -> int:
        here, there = socket.socketpair()
        here.setblocking(False)
        with there, (tmp_path / "file").open("rb") as file:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, here)
            outlet = Outlet(transport)
            task = asyncio.create_task(outlet.send(file.fileno(), 0, len(CONTENT)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            outlet.close()
            transport.abort()
            await asyncio.sleep(0)
            return len(read_all(there))

    assert 0 < asyncio.run(give_up()) < len(CONTENT)
