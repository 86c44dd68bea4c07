"""Quotas: a project's own, the server's for the others, and what happens where one is reached."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

from core.errors import QuotaReached, QuotaUsedUp
from core.jobs import asking, deletion, quotas, retention
from core.jobs.database import Database
from core.jobs.models.jobs import Attempt
from core.jobs.models.projects import Project
from core.jobs.quotas import UNLIMITED, Quotas
from core.settings import Settings
from tests.core.jobs.lines import PROJECT, claim, submit, succeed
from tests.core.jobs.test_neighbours import add_file

DAY = 86400


def limit(database: Database, **own: int | None) -> None:
    with database.write() as session:
        session.execute(update(Project).where(Project.id == PROJECT).values(own))


def admit(database: Database, *devices: str, defaults: Quotas = UNLIMITED) -> None:
    with database.write() as session:
        quotas.admit_jobs(session, PROJECT, devices=list(devices), defaults=defaults)


def test_a_projects_own_quota_comes_before_the_servers(database: Database) -> None:
    server = Quotas.of_server(Settings(project_max_running_jobs=3, project_max_gpu_seconds=9))
    limit(database, max_running_jobs=0, max_unfinished_jobs=5)
    with database.read() as session:
        assert server.of(session.get_one(Project, PROJECT)) == Quotas(0, 5, 0, 9)


def test_unfinished_jobs_are_counted_and_their_end_makes_room(database: Database) -> None:
    admit(database, *["auto"] * 50)
    limit(database, max_unfinished_jobs=2)
    submit(database)
    admit(database, "auto")
    with pytest.raises(QuotaReached) as raised:
        admit(database, "auto", "auto")
    assert (raised.value.param, raised.value.code, raised.value.status) == (
        "max_unfinished_jobs",
        "quota_exceeded",
        429,
    )
    succeed(database, claim(database))
    admit(database, "auto", "auto")


def test_bytes_are_refused_beyond_what_may_be_stored(database: Database) -> None:
    add_file(database, size=100)
    for own, server in ((150, 0), (None, 150)):
        limit(database, max_stored_bytes=own)
        defaults = Quotas(max_stored_bytes=server)
        with database.write() as session:
            quotas.admit_bytes(session, PROJECT, more=50, defaults=defaults)
            with pytest.raises(QuotaUsedUp) as raised:
                quotas.admit_bytes(session, PROJECT, more=51, defaults=defaults)
        assert (raised.value.param, raised.value.code, raised.value.status) == (
            "max_stored_bytes",
            "quota_exceeded",
            403,
        )
        admit(database, "cpu", defaults=defaults)
    limit(database, max_stored_bytes=100)
    with pytest.raises(QuotaUsedUp, match="stores 100 bytes"):
        admit(database, "cpu")


def test_gpu_seconds_are_those_of_the_last_thirty_days(database: Database) -> None:
    job_id = submit(database)
    now = int(time.time())
    spans = [
        ("cuda", now - 40 * DAY, now - 31 * DAY),
        ("cuda", now - 31 * DAY, now - 30 * DAY + 1000),
        ("cpu", now - 500, now),
        ("cuda", now - 500, now - 400),
        ("cuda", now - 50, None),
    ]
    with database.write() as session:
        for fence, (device, start, end) in enumerate(spans, 1):
            row = Attempt(job_id=job_id, fence=fence, attempt=1, owner="w", device=device, started_at=start)
            row.ended_at = end
            session.add(row)
    with database.read() as session:
        assert quotas.gpu_seconds(session, PROJECT) == pytest.approx(1150, abs=10)
        assert quotas.gpu_seconds(session, "proj-other") == 0
        assert quotas.usage_of(session, PROJECT).unfinished_jobs == 1
    limit(database, max_gpu_seconds=1000)
    for device in ("auto", "cuda"):
        with pytest.raises(QuotaUsedUp, match="GPU seconds"):
            admit(database, device)
    admit(database, "cpu")
    limit(database, max_gpu_seconds=2000)
    admit(database, "cuda")


def test_deleting_a_job_does_not_give_its_gpu_seconds_back(database: Database) -> None:
    job_id = submit(database)
    now = int(time.time())
    with database.write() as session:
        for fence, device in enumerate(("cuda", "cpu", "cuda"), 1):
            span = {"started_at": now - 300, "ended_at": now - 200}
            session.add(Attempt(job_id=job_id, fence=fence, attempt=1, owner="w", device=device, **span))
        asking.cancel_job(session, PROJECT, job_id)
        deletion.delete_job(session, PROJECT, job_id)
    with database.read() as session:
        assert quotas.gpu_seconds(session, PROJECT) == 200
    with database.write() as session:
        assert retention.drop_spent_gpu(session, days=30) == 0
        assert retention.drop_spent_gpu(session, days=0) == 2
        assert quotas.gpu_seconds(session, PROJECT) == 0
