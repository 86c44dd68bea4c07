"""The API that most tests share, and a client of a project that nobody else has."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.api.service import Service, new_project, serving


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """The API that most tests share; each has a project of its own."""
    with serving(tmp_path_factory.mktemp("api"), redis_url, 2) as service:
        yield service


@pytest.fixture
def key(service: Service) -> str:
    return new_project(service)


@pytest.fixture
def http(service: Service, key: str) -> Iterator[httpx.Client]:
    """A client of a new project, with role admin in it."""
    with service.client(key) as client:
        yield client
