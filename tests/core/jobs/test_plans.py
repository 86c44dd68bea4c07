"""No query that is asked often reads a whole table, or sorts one: what the databases themselves say they would do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from benchmarks.service.rows import fill
from core.jobs import (
    asking,
    claiming,
    deliveries,
    fetches,
    files,
    keys,
    leases,
    pipelines,
    publishing,
    quotas,
    retention,
    store,
    sweeping,
    trained_models,
    waiting,
)
from core.jobs.database import Database
from core.jobs.details import details_of
from core.jobs.events import EventId, list_events
from core.jobs.models.base import Base
from core.jobs.models.jobs import Job
from core.jobs.status import Status
from core.settings import Settings
from tests.conftest import emptied

JOBS = 20_000  # so many that PostgreSQL does not rather read all of them
PROJECT, OLD, QUEUED = "proj-0", "job-1000000003", "job-1000010000"
FEW = {"projects", "workers", "api_keys", "CONSTANT", "anon_1"}  # tables with few rows, and what is none


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with many jobs."""
    folder: Path = tmp_path_factory.mktemp("plans")
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder}/jobs.sqlite3" if is_sqlite else emptied(request.getfixturevalue("postgresql_url"))
    database = Database(url)
    Base.metadata.create_all(database.engine)
    fill(url, JOBS, key_sha256="0" * 64)
    yield database
    database.close()


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is executed in the block, with its parameters."""
    found: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, is_many: bool) -> None:
        found.append((statement, parameters[0] if is_many else parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    yield found
    event.remove(database.engine, "before_cursor_execute", note)


def plans(database: Database, ask: Callable[[Session], Any]) -> str:
    """What the database says of each statement that `ask` executes; nothing stays of what it does."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    with Session(database.engine) as session, statements(database) as asked:
        ask(session)
        session.rollback()
    found = []
    with database.engine.connect() as connection:
        if not is_sqlite:  # it rightly scans and sorts what is small: this shows whether it would have to
            for way in ("seqscan", "bitmapscan", "sort"):
                connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        for statement, parameters in asked:
            if re.match(r"\s*(SELECT|UPDATE|INSERT|DELETE)", statement):
                explained = f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{statement}"
                rows = connection.exec_driver_sql(explained, parameters).all()
                found.append("\n".join([statement, *(str(row[-1]) for row in rows)]))
    assert found, "nothing was asked"
    return "\n\n".join(found)


def scanned(told: str) -> set[str]:
    """The tables, but those with few rows, that are read from end to end."""
    return set(re.findall(r"^(?:.*Seq Scan on|SCAN) (\w+)", told, re.MULTILINE)) - FEW


def is_sorted(told: str) -> bool:
    """Whether rows are gathered and then sorted."""
    return bool(re.search(r"Sort Key|TEMP B-TREE FOR ORDER BY", told))


def look(session: Session) -> Any:
    jobs = [store.get_job(session, PROJECT, QUEUED)]
    return details_of(session, PROJECT, jobs, Settings())


def finish(session: Session) -> None:
    claim = claiming.claim_job(session, owner="w", devices=("auto",), lease_seconds=60)
    assert claim is not None
    leases.renew_lease(session, claim, lease_seconds=60, progress=None, metrics={})
    publishing.succeed_job(session, claim, files=[], metrics={}, lineage={})


def last_page(session: Session) -> None:
    middle = f"job-{1_000_000_000 + JOBS // 2}"
    for order in ("asc", "desc"):
        assert store.list_jobs(session, PROJECT, after=middle, order=order)


LISTS: dict[str, Callable[[Session], Any]] = {
    "jobs": partial(store.list_jobs, project_id=PROJECT),
    "jobs behind one": last_page,
    "jobs in a state": partial(store.list_jobs, project_id=PROJECT, statuses=[Status.PAUSED]),
    "jobs in two states": partial(store.list_jobs, project_id=PROJECT, statuses=[Status.FAILED, Status.QUEUED]),
    "jobs of a method": partial(store.list_jobs, project_id=PROJECT, method="m1", after=QUEUED),
    "jobs of a method in a state": partial(
        store.list_jobs, project_id=PROJECT, method="m1", statuses=[Status.QUEUED], order="asc"
    ),
    "files of a purpose": partial(files.list_files, project_id=PROJECT, purpose="base-model"),
    "models": partial(trained_models.list_models, project_id=PROJECT),
    "pipelines": partial(pipelines.list_pipelines, project_id=PROJECT),
    "events": partial(list_events, job_id=OLD, after=EventId(1, 500), limit=20),
    "newest events": partial(list_events, job_id=OLD, limit=20, newest_first=True),
    "events of a type": partial(list_events, job_id=OLD, types=["status"], limit=20),
}
OTHERS: dict[str, Callable[[Session], Any]] = {
    "who shows a key": partial(keys.find_keys, secrets=["ww-unknown"]),
    "a look at a waiting job": look,
    "a claim, a renewal, an end": finish,
    "the sweeper's leases": partial(sweeping.suspect_leases, lease_seconds=60),
    "the sweeper's wake-ups": partial(waiting.waiting_devices, older_than=5, limit=16),
    "quotas": partial(
        quotas.admit_jobs,
        project_id=PROJECT,
        devices=["cuda"],
        defaults=quotas.Quotas(max_running_jobs=1, max_unfinished_jobs=10**6, max_gpu_seconds=10),
    ),
    "whether a file is needed": partial(files.refuse_while_needed, project_id=PROJECT, reference="file-2"),
    "expired files": retention.expired_files,
    "what webhooks have to tell": deliveries.is_any_due,
    "webhooks to be sent": partial(
        deliveries.claim_due, seconds=30, limit=32, under_way={"proj-1": 4}, most_of_project=4
    ),
    "fetches that are lost": fetches.has_lost,
    "a cancel": partial(asking.cancel_job, project_id=PROJECT, job_id=QUEUED),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_reads_its_page_from_an_index(large: Database, name: str) -> None:
    told = plans(large, LISTS[name])
    assert not scanned(told), told
    assert not is_sorted(told), told


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_asked_often_scans_nothing(large: Database, name: str) -> None:
    told = plans(large, OTHERS[name])
    assert not scanned(told), told


@pytest.mark.parametrize("name", ["what webhooks have to tell", "webhooks to be sent"])
def test_what_is_not_due_is_not_read(large: Database, name: str) -> None:
    told = plans(large, OTHERS[name])
    assert re.search(r"Index Cond: .*next_at <=|USING .*INDEX ix_webhook_deliveries_due .*next_at<", told), told


def test_a_lost_fetch_is_found_by_its_silence(large: Database) -> None:
    told = plans(large, fetches.has_lost)
    assert re.search(r"Index Cond: .*seen_at <|status=\? AND seen_at<\?", told), told


def test_the_claim_takes_the_first_of_an_index(large: Database) -> None:
    claim = partial(claiming.claim_job, owner="w", devices=("auto", "cpu"), lease_seconds=60)
    told = [one for one in plans(large, claim).split("\n\n") if "LIMIT" in one and "lacks_weights" in one]
    assert len(told) == 2
    for one in told:
        assert "ix_jobs_claim" in one
        assert not is_sorted(one), one


def test_jobs_that_lack_weights_cost_the_claim_nothing(large: Database) -> None:
    """They are a stretch of the index that nobody reads."""
    with Session(large.engine) as session:
        session.execute(text("UPDATE jobs SET lacks_weights = (1 = 1) WHERE project_id <> 'proj-1'"))
        session.flush()
        claim = claiming.claim_job(session, owner="w", devices=("auto",), lease_seconds=60)
        assert claim is not None
        assert session.get_one(Job, claim.job_id).project_id == "proj-1"
        session.rollback()
    told = plans(large, partial(claiming.claim_job, owner="w", devices=("auto",), lease_seconds=60))
    assert re.search(r"lacks_weights=\?|NOT jobs.lacks_weights|lacks_weights = false", told), told
