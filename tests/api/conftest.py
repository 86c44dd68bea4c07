"""The API that most tests share, and a client of a project that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.api.service import Service, new_project, serving
from tests.hub import TOKEN, Hub


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    """A hub of no models."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str, hub: Hub) -> Iterator[Service]:
    """The API that most tests share; each has a project of its own. It may fetch from the hub."""
    allowed = {"WEIGHTWORKS_HUB_URL": hub.url, "WEIGHTWORKS_HUB_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}
    with serving(tmp_path_factory.mktemp("api"), redis_url, 2, **allowed) as service:
        yield service


@pytest.fixture
def key(service: Service) -> str:
    return new_project(service)


@pytest.fixture
def http(service: Service, key: str) -> Iterator[httpx.Client]:
    """A client of a new project, with role admin in it."""
    with service.client(key) as client:
        yield client
