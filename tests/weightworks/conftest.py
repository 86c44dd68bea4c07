"""A client of the service, small data sets, and a relay that cuts connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.data.examples import write_images, write_table
from weightworks import Client
from weightworks.files import File
from weightworks.jobs import Job


@pytest.fixture(scope="session")
def client(weightworks_up: Any) -> Iterator[Client]:
    with Client(home=weightworks_up.home) as client:
        yield client


@pytest.fixture(scope="session")
def table(client: Client, tmp_path_factory: pytest.TempPathFactory) -> File:
    path = tmp_path_factory.mktemp("data") / "table.csv"
    write_table(path)
    return client.files.upload(path)


@pytest.fixture(scope="session")
def images(client: Client, tmp_path_factory: pytest.TempPathFactory) -> File:
    path = tmp_path_factory.mktemp("data") / "images.zip"
    write_images(path)
    return client.files.upload(path)


@pytest.fixture(scope="session")
def trained(client: Client, images: File) -> Job:
    """A job that has succeeded, with many steps, events and artifacts."""
    spec = {
        "method": "classification",
        "dataset": images.id,
        "name": "bars",
        "metadata": {"team": "client"},
        "architecture": {"architecture": "convnet", "channels": [8, 16]},
        "validation_fraction": 0.2,
        "epochs": 20,
        "batch_size": 16,
        "checkpoint_every": 40,
    }
    job = client.jobs.wait(client.jobs.create(spec).id, timeout=180)
    assert job.status == "succeeded", job.error
    return job


class Relay:
    """Passes connections on to a server; each is cut after so many bytes of the answers, or of what is sent."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.cut_after: int | None = None
        self.cut_sent_after: int | None = None
        self.connections = self.sent = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.socket.accept()
                self.connections += 1
                far = socket.create_connection(("127.0.0.1", self.server_port))
                threading.Thread(target=self._pass, args=(near, far, self.cut_sent_after), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, self.cut_after), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, left: int | None) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                target.sendall(chunk if left is None else chunk[:left])
                self.sent += len(chunk) if target.getpeername()[1] == self.server_port else 0
                left = None if left is None else left - len(chunk)
                if left is not None and left <= 0:
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def relay(client: Client) -> Iterator[Relay]:
    relay = Relay(int(client.connection.base_url.rpartition(":")[2]))
    yield relay
    relay.socket.close()


@pytest.fixture
def distant(client: Client, relay: Relay) -> Iterator[Client]:
    """A client behind the relay."""
    with Client(relay.base_url, client.connection.api_key) as distant:
        yield distant


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
