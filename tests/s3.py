"""A real S3 server (moto's), the wire to it, which can be cut, and a server that refuses everything."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from core.settings import Settings
from core.storage.objects import ObjectStorage

ACCESS_KEY, SECRET_KEY = "AKIAOFTHESETESTS", "the-secret-of-these-tests"
PATIENCE = 180.0


class S3:
    """moto's server in a process of its own. All is in its memory."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MOTO_S3_CUSTOM_ENDPOINTS": self.url},
        )
        self._buckets = 0

    def start(self) -> None:
        """Wait until it answers."""
        ends_at = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/moto-api/", timeout=5)
                return
            assert time.monotonic() < ends_at, "moto's server did not start"
            time.sleep(0.05)

    def new_bucket(self) -> str:
        """The name of an empty bucket."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        assert httpx.put(f"{self.url}/{name}", timeout=PATIENCE).is_success
        return name

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def settings_of(bucket: str, url: str, scratch: Path) -> dict[str, str]:
    """The environment of a server that stores in this bucket."""
    return {
        "WEIGHTWORKS_STORAGE_URL": f"s3://{bucket}/some/prefix",
        "WEIGHTWORKS_SCRATCH_PATH": str(scratch),
        "WEIGHTWORKS_S3_ENDPOINT_URL": url,
        "WEIGHTWORKS_S3_REGION": "eu-central-1",
        "WEIGHTWORKS_S3_RETRY_SECONDS": "1",
        "WEIGHTWORKS_S3_ACCESS_KEY_ID": ACCESS_KEY,
        "WEIGHTWORKS_S3_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def open_bucket(bucket: str, url: str, scratch: Path, **changes: object) -> ObjectStorage:
    """The storage of such a server."""
    told = {
        name.removeprefix("WEIGHTWORKS_").lower(): value for name, value in settings_of(bucket, url, scratch).items()
    }
    return ObjectStorage(Settings(**{**told, **changes}), retry_seconds=1)


class Wire:
    """Passes on what is said to a server, until it is cut."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._is_free = threading.Event()
        self._is_free.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Have the server be away."""
        self._is_cut = True
        for end in list(self._open):
            _shut(end)

    def hold(self) -> None:
        """Have it be so slow that nothing comes."""
        self._is_free.clear()

    def mend(self) -> None:
        """Have it be back."""
        self._is_cut = False
        self._is_free.set()

    def close(self) -> None:
        self.cut()
        _shut(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_cut:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._open |= {client, server}
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                self._is_free.wait()
                target.sendall(chunk)
        for end in (source, target):
            _shut(end)
            self._open.discard(end)
        source.close()


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def refusing(status: int, code: str) -> Iterator[str]:
    """The address of a server that answers everything with this status and S3's error of this code."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId></Error>"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - the names that the server calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
