"""The API that most tests share, and a client of a project that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from core.jobs.database import Database
from core.jobs.models import Base
from core.progress import Publisher
from core.storage import Storage
from tests.api.schema import Schema
from tests.api.service import Service, new_project, start_apis


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """The API that most tests share; each has a project of its own."""
    folder = tmp_path_factory.mktemp("api")
    database = Database(f"sqlite:///{folder}/jobs.sqlite3")
    Base.metadata.create_all(database.engine)
    parent, apis = start_apis(folder, redis_url, 2)
    publisher, storage = Publisher(redis_url), Storage(folder / "storage")
    schema = Schema(httpx.get(f"{apis[0].base_url}/openapi.json", timeout=30).json())
    service = Service(folder, *apis, database, storage, publisher, schema)
    yield service
    for api in apis:
        if api.process.is_running():
            api.process.terminate()
    assert parent.wait(20) == 0
    parent.stdout.close()
    publisher.close()
    database.close()
    log = (folder / "api.log").read_text()
    assert log.count("Traceback") == service.tracebacks, log
    assert "ww-" not in log, "a log holds a key"


@pytest.fixture
def key(service: Service) -> str:
    return new_project(service)


@pytest.fixture
def http(service: Service, key: str) -> Iterator[httpx.Client]:
    """A client of a new project, with role admin in it."""
    with service.client(key) as client:
        yield client
