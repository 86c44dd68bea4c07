"""What a request costs, counted rather than timed: SQL statements, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from api.main import create_app
from core.jobs import claiming, leases
from core.jobs.database import Database
from core.jobs.events import NewEvent, as_row, insert_events
from core.jobs.models.base import Base
from core.settings import Settings
from tests.api.service import ADMIN_KEY, upload

LISTED = 30
STATEMENTS = {"submit": 16, "status": 8, "events": 3, "claim": 15, "download": 2}  # more need a reason


class Counted:
    """An API in this process, and a count of the statements that its database is sent."""

    def __init__(self, http: TestClient, database: Database) -> None:
        self.http, self.database = http, database
        self.statements: list[str] = []
        event.listen(database.engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        if not statement.startswith("BEGIN"):  # which PostgreSQL's driver sends by itself
            self.statements.append(statement)

    def during(self, action: Callable[[], Any]) -> int:
        """How many statements an action takes, once all that is kept in memory is there."""
        action()
        self.statements.clear()
        action()
        return len(self.statements)

    def get(self, path: str) -> int:
        """How many statements a GET takes."""
        return self.during(lambda: self.http.get(path).raise_for_status())

    def submit(self, dataset: str, **changes: Any) -> str:
        body = {"method": "pca", "n_components": 2, "dataset": dataset, **changes}
        answer = self.http.post("/v1/jobs", json=body).raise_for_status()
        return str(answer.json()["id"])

    def claim(self) -> leases.Claim | None:
        with self.database.write() as session:
            return claiming.claim_job(session, owner="w", devices=("auto", "cpu"), lease_seconds=600)


@contextmanager
def counted(url: str, redis_url: str, folder: Path) -> Iterator[Counted]:
    """The whole API, but that nothing runs by itself beside the requests."""
    tables = Database(url)
    Base.metadata.create_all(tables.engine)
    tables.close()
    never = dict.fromkeys(("sweep_seconds", "collect_seconds", "renew_seconds", "webhook_poll_seconds"), 3600)
    settings = Settings(
        database_url=url, redis_url=redis_url, storage_url=str(folder / "storage"), admin_key=ADMIN_KEY, **never
    )
    app = create_app(settings)
    with TestClient(app, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as http:
        yield Counted(http, app.state.server.database)


@pytest.fixture
def api(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Counted]:
    with counted(database_url, redis_url, tmp_path) as api:
        yield api


def test_statements_of_requests_and_claims(api: Counted) -> None:
    dataset = upload(api.http)["id"]
    first = api.submit(dataset)
    found = {
        "submit": api.during(lambda: api.submit(dataset)),
        "status": api.get(f"/v1/jobs/{first}"),
        "events": api.get(f"/v1/jobs/{first}/events"),
        "claim": api.during(api.claim),
        "download": api.get(f"/v1/files/{dataset}/content"),
    }
    is_postgresql = api.database.engine.dialect.name == "postgresql"
    found["submit"] -= is_postgresql  # which has a lock taken, lest a repeat makes the job twice
    assert found == STATEMENTS


def test_a_page_takes_as_many_statements_as_a_job(api: Counted) -> None:
    dataset = upload(api.http)["id"]
    first = api.submit(dataset)
    few = [api.get(path) for path in ("/v1/jobs", f"/v1/jobs/{first}/events", "/v1/files")]
    for index in range(LISTED):
        api.submit(dataset, seed=index)
    held = api.claim()
    assert held is not None
    with api.database.write() as session:
        steps = [NewEvent("metrics", data={"step": step, "values": {"loss": 0.5}}) for step in range(100)]
        insert_events(session, [as_row(first, 1, seq, one, now=0.0) for seq, one in enumerate(steps, 2)])
    for _ in range(3):
        upload(api.http)
    many = [api.get(f"{path}?limit=100") for path in ("/v1/jobs", f"/v1/jobs/{first}/events", "/v1/files")]
    assert many[0] <= few[0] + 1  # the attempts of those that have any
    assert many[1:] == few[1:]


def test_a_claim_takes_as_many_statements_however_long_the_queue(api: Counted) -> None:
    dataset = upload(api.http)["id"]
    for index in range(3):
        api.submit(dataset, seed=index)
    few = api.during(api.claim)
    for index in range(LISTED):
        api.submit(dataset, seed=100 + index)
    assert api.during(api.claim) == few
