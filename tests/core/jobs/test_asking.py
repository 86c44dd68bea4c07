"""What can be asked of a job in each state."""

from __future__ import annotations

import time

import pytest

from core.errors import Conflict
from core.jobs import asking, leases, publishing, sweeping
from core.jobs.database import Database
from core.jobs.status import Status
from tests.core.jobs.lines import PROJECT, claim, get, submit


def test_cancel_in_each_state(database: Database) -> None:
    job_id = submit(database)
    with database.write() as session:
        assert asking.cancel_job(session, PROJECT, job_id).status is Status.CANCELLED
    with pytest.raises(Conflict, match="cancelled already"), database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    running = submit(database)
    held = claim(database)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, running)
    with database.write() as session:
        assert leases.renew_lease(session, held, lease_seconds=9, progress=None, metrics={})
    with database.write() as session:
        publishing.cancel_running_job(session, held, files=[], metrics={})
    assert get(database, running).status is Status.CANCELLED


def test_a_lost_worker_does_not_lose_a_cancel(database: Database) -> None:
    job_id = submit(database)
    claim(database, seconds=0.01)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    time.sleep(0.05)
    with database.write() as session:
        sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60))
    assert get(database, job_id).status is Status.CANCELLED


def test_retry_queues_again_only_what_failed_or_was_cancelled(database: Database) -> None:
    job_id = submit(database)
    with pytest.raises(Conflict, match="queued"), database.write() as session:
        asking.retry_job(session, PROJECT, job_id)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    with database.write() as session:
        asking.retry_job(session, PROJECT, job_id)
    assert claim(database).job_id == job_id
