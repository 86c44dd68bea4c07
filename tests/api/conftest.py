"""The API that most tests share, and a client of a project that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from core.jobs.database import Database
from core.jobs.models import Base
from core.progress import Publisher
from core.storage import Storage
from tests.api.service import Service, new_project, start_api


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """The API that most tests share; each has a project of its own."""
    folder = tmp_path_factory.mktemp("api")
    database = Database(f"sqlite:///{folder}/jobs.sqlite3")
    Base.metadata.create_all(database.engine)
    process, base_url = start_api(folder, redis_url)
    publisher = Publisher(redis_url)
    yield Service(folder, redis_url, base_url, process, database, Storage(folder / "storage"), publisher)
    process.terminate()
    assert process.wait(20) is not None
    publisher.close()
    database.close()
    log = (folder / "api.log").read_text()
    assert "Traceback" not in log, log


@pytest.fixture
def key(service: Service) -> str:
    return new_project(service)


@pytest.fixture
def http(service: Service, key: str) -> Iterator[httpx.Client]:
    """A client of a new project, with role admin in it."""
    with service.client(key) as client:
        yield client
