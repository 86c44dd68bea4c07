"""A client that sends no Idempotency-Key and tries again makes one job, whichever of its tries comes first."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select, text, update

from core.jobs.database import Database
from core.jobs.models.base import Base
from core.jobs.models.projects import Project
from core.jobs.models.submissions import Submission
from core.jobs.store import list_jobs
from tests.api.service import ADMIN_KEY, Api, start_apis, upload
from tests.conftest import emptied


class Pair:
    """Two API processes on one database, and a data set."""

    def __init__(self, apis: list[Api], database: Database) -> None:
        self.apis, self.database = apis, database
        with self.client(0) as http:
            self.file = upload(http)["id"]
        with database.read() as session:
            self.project = session.scalars(select(Project.id)).one()

    def client(self, number: int) -> httpx.Client:
        url = self.apis[number].base_url
        return httpx.Client(base_url=url, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=60)

    def body(self, path: str, seed: int) -> dict[str, Any]:
        spec = {"method": "pca", "n_components": 2, "dataset": self.file, "seed": seed}
        return spec if path == "/v1/jobs" else {"jobs": {"one": spec}}

    def post(self, number: int, seed: int, *, tried: int, path: str = "/v1/jobs") -> str:
        with self.client(number) as http:
            headers = {"x-stainless-retry-count": str(tried)}
            answer = http.post(path, json=self.body(path, seed), headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def made(self, seed: int) -> list[str]:
        with self.database.read() as session:
            return [job.id for job in list_jobs(session, self.project, limit=1000) if job.spec["seed"] == seed]

    @contextmanager
    def begun(self, number: int, seed: int) -> Iterator[Callable[[], bytes]]:
        """A first try of which all but the end has been sent; to end it, and hear the answer."""
        body = json.dumps(self.body("/v1/jobs", seed)).encode()
        address = ("127.0.0.1", urlsplit(self.apis[number].base_url).port)
        with socket.create_connection(address, timeout=60) as opened:
            opened.sendall(
                b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\nexpect: 100-continue\r\n\r\n" % (ADMIN_KEY.encode(), len(body))
            )
            assert opened.recv(100).startswith(b"HTTP/1.1 100"), "so it has arrived"

            def end() -> bytes:
                opened.sendall(body)
                answer = opened.recv(65536)
                while not answer.partition(b"\r\n\r\n")[2]:  # the head may come by itself
                    answer += opened.recv(65536)
                return answer

            yield end


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("repeats")
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder}/jobs.sqlite3" if is_sqlite else emptied(request.getfixturevalue("postgresql_url"))
    database = Database(url)
    Base.metadata.create_all(database.engine)
    parent, apis = start_apis(folder, redis_url, 2, WEIGHTWORKS_DATABASE_URL=url)
    yield Pair(apis, database)
    for api in apis:
        api.process.terminate()
    assert parent.wait(60) == 0
    assert parent.stdout is not None
    parent.stdout.close()
    database.close()
    assert "Traceback" not in (folder / "api.log").read_text()


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Nobody else writes meanwhile."""
    with database.write() as session:
        if database.engine.dialect.name == "postgresql":
            session.execute(text("LOCK TABLE submissions IN ACCESS EXCLUSIVE MODE"))
        yield
        session.rollback()


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/pipelines"])
def test_a_repeat_finds_what_the_first_try_made(pair: Pair, path: str) -> None:
    first = pair.post(0, 1, tried=0, path=path)
    assert [pair.post(number, 1, tried=tried, path=path) for number, tried in ((1, 1), (0, 2), (1, 1))] == [first] * 3
    assert pair.post(1, 2, tried=1, path=path) != first, "another body"
    second = pair.post(1, 1, tried=0, path=path)
    assert second != first, "sent again on purpose"
    assert pair.post(0, 1, tried=1, path=path) == second


def test_what_is_long_ago_or_anothers_is_no_first_try(pair: Pair) -> None:
    first = pair.post(0, 3, tried=0)
    with pair.client(0) as http:
        key = http.post("/v1/api_keys", json={"name": "other", "role": "write"}).json()["key"]
        headers = {"authorization": f"Bearer {key}", "x-stainless-retry-count": "1"}
        assert http.post("/v1/jobs", json=pair.body("/v1/jobs", 3), headers=headers).json()["id"] != first
    with pair.database.write() as session:
        session.execute(update(Submission).values(created_at=Submission.created_at - 3600))
    assert pair.post(0, 3, tried=1) != first


def test_a_repeat_of_what_was_never_done_is_the_first(pair: Pair) -> None:
    assert len({pair.post(0, 4, tried=1), pair.post(1, 4, tried=2)}) == 1


@pytest.mark.parametrize(("path", "seed"), [("/v1/jobs", 10), ("/v1/pipelines", 11)])
def test_tries_that_all_wait_for_the_database_make_one_job(pair: Pair, path: str, seed: int) -> None:
    with ThreadPoolExecutor() as threads:
        with locked(pair.database):
            tries = [threads.submit(pair.post, tried % 2, seed, tried=tried, path=path) for tried in range(6)]
            time.sleep(1.0)  # so that all of them wait, in whatever order
            assert not any(one.done() for one in tries)
        assert len({one.result() for one in tries}) == 1
    assert len(pair.made(seed)) == 1


def test_a_first_try_that_comes_behind_its_repeat_makes_no_second_job(pair: Pair) -> None:
    with pair.begun(0, 6) as end, pair.begun(0, 6) as end_another:
        repeat = pair.post(1, 6, tried=1)
        assert pair.post(1, 6, tried=2) == repeat
        assert repeat.encode() in end()
        assert repeat.encode() not in end_another(), "of two first tries the repeat was one's"
    assert len(pair.made(6)) == 2


def test_who_has_given_up_makes_no_job(pair: Pair) -> None:
    process = pair.apis[0].process
    body = json.dumps(pair.body("/v1/jobs", 7)).encode()
    process.suspend()
    try:
        with socket.create_connection(("127.0.0.1", urlsplit(pair.apis[0].base_url).port)) as opened:
            opened.sendall(
                b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (ADMIN_KEY.encode(), len(body), body)
            )
        repeat = pair.post(1, 7, tried=1)
    finally:
        process.resume()
    for seed in range(100, 110):  # what came later is made: so what came before was looked at
        pair.post(0, seed, tried=0)
    assert pair.made(7) == [repeat]
