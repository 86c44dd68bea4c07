"""Pauses after failed attempts, and leases that a clock makes look lost."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from core.errors import WeightworksError
from core.jobs import asking, attempts, leases, sweeping
from core.jobs.claimable import retry_pause
from core.jobs.database import Database, database_now
from core.jobs.models.jobs import Job
from core.jobs.status import Status
from core.jobs.waiting import waiting_devices
from tests.core.jobs.lines import PROJECT, claim, events_of, get, submit

HOUR = 3600.0


def fail(database: Database, held: leases.Claim, retry_seconds: float) -> Status:
    with database.write() as session:
        error = WeightworksError("killed by signal 9")
        return attempts.fail_job(session, held, error, is_retryable=True, retry_seconds=retry_seconds)


def jump(database: Database, seconds: float) -> None:
    """What a clock that jumps by so many seconds makes of the times in the rows."""
    with database.write() as session:
        moved = {
            "claimable_at": Job.claimable_at - seconds,
            "lease_expires_at": Job.lease_expires_at - seconds,
        }
        session.execute(update(Job).values(moved))


def suspects(database: Database) -> list[sweeping.Suspect]:
    with database.read() as session:
        return sweeping.suspect_leases(session, lease_seconds=60)


def due(database: Database) -> list[str]:
    with database.read() as session:
        return waiting_devices(session, older_than=9, limit=3)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 4), (3, 8), (6, 60), (60, 60)])
def test_a_pause_doubles_up_to_a_minute(attempt: int, seconds: float) -> None:
    assert retry_pause(2.0, attempt) == seconds


def test_a_failed_attempt_is_followed_by_a_pause(database: Database) -> None:
    job_id = submit(database, max_attempts=5)
    with database.read() as session:
        before = session.scalars(select(database_now())).one()
    assert fail(database, claim(database), retry_seconds=30) is Status.QUEUED
    assert 30 <= get(database, job_id).claimable_at - before < 50
    assert claim(database) is None
    assert due(database) == []
    jump(database, 31)
    assert due(database) == ["auto"]  # nobody was woken for it
    held = claim(database)
    assert held.attempt == 2
    assert fail(database, held, retry_seconds=30) is Status.QUEUED
    jump(database, 31)
    assert claim(database) is None
    jump(database, 30)
    assert claim(database).attempt == 3


def test_who_pauses_resumes_or_retries_does_not_wait(database: Database) -> None:
    job_id = submit(database, max_attempts=2)
    fail(database, claim(database), retry_seconds=60)
    for changes in ((asking.pause_job, asking.resume_job), (asking.cancel_job, asking.retry_job)):
        assert claim(database) is None
        for change in changes:
            with database.write() as session:
                change(session, PROJECT, job_id)
        held = claim(database)
        assert held.job_id == job_id
        with database.write() as session:
            attempts.release_job(session, held)
        with database.write() as session:
            session.execute(update(Job).values(attempt=1, claimable_at=database_now() + 50))


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_clock_that_jumps_keeps_no_job_waiting(database: Database, seconds: float) -> None:
    fresh, failed = submit(database), submit(database)
    held = [claim(database), claim(database)]
    fail(database, held[1], retry_seconds=60)
    with database.write() as session:
        attempts.release_job(session, held[0])
    jump(database, seconds)
    assert {claim(database).job_id, claim(database).job_id} == {fresh, failed}


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_jump_makes_every_lease_suspect_and_a_renewal_clears_it(database: Database, seconds: float) -> None:
    living, lost = submit(database), submit(database)
    held, _ = claim(database), claim(database)
    assert suspects(database) == []
    jump(database, seconds)
    seen = suspects(database)
    assert {one.job_id for one in seen} == {living, lost}
    with database.write() as session:
        leases.renew_lease(session, held, lease_seconds=60, progress=None, metrics={})
    assert {one.job_id for one in suspects(database)} == {lost}
    for _ in range(2):
        with database.write() as session:
            swept = sweeping.sweep_expired(session, seen)
    assert (swept.requeued, get(database, living).status, get(database, lost).status) == ([], "running", "queued")
    assert [status for _, status in events_of(database, lost)] == ["queued", "running", "queued"]
