"""The row decides: fences, leases, and what late writers get."""

from __future__ import annotations

import time

import pytest

from core.errors import WeightworksError
from core.jobs import attempts, checkpointing, claiming, leases, publishing, sweeping
from core.jobs.database import Database
from core.jobs.events import EventId
from core.jobs.leases import LeaseLost
from core.jobs.status import Status
from tests.core.jobs.lines import claim, events_of, get, submit, succeed


def test_a_lost_lease_is_queued_again_and_the_late_writer_is_rejected(database: Database) -> None:
    job_id = submit(database)
    late = claim(database, seconds=0.01)
    time.sleep(0.05)
    with database.write() as session:
        assert sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60)).requeued == [job_id]
    held = claim(database, owner="worker-2")
    assert (held.job_id, held.attempt) == (job_id, 2)
    assert held.fence > late.fence
    for write in (
        lambda session: leases.renew_lease(session, late, lease_seconds=1, progress=None, metrics={}),
        lambda session: publishing.succeed_job(session, late, files=[], metrics={}, lineage={}),
        lambda session: attempts.fail_job(session, late, WeightworksError("late"), is_retryable=False),
        lambda session: attempts.release_job(session, late),
        lambda session: checkpointing.add_checkpoint(session, late, key="k", step=1, size=1, sha256="", metrics={}),
    ):
        with pytest.raises(LeaseLost), database.write() as session:
            write(session)
    succeed(database, held)
    assert get(database, job_id).status is Status.SUCCEEDED
    ids = [EventId.parse(place) for place, _ in events_of(database, job_id)]
    assert ids == sorted(ids, key=lambda place: (place.fence, place.seq))
    assert len(set(ids)) == len(ids)


def test_attempts_are_bounded(database: Database) -> None:
    job_id = submit(database, max_attempts=2)
    for _ in range(2):
        claim(database, seconds=0.01)
        time.sleep(0.05)
        with database.write() as session:
            sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60))
    job = get(database, job_id)
    assert job.status is Status.FAILED
    assert job.error["code"] == "worker_lost"
    assert claim(database) is None


def test_a_retryable_failure_uses_an_attempt_a_release_does_not(database: Database) -> None:
    job_id = submit(database, max_attempts=2)
    with database.write() as session:
        attempts.release_job(session, claiming.claim_job(session, owner="w", devices=["auto"], lease_seconds=9))
    assert get(database, job_id).attempt == 0
    crash = WeightworksError("killed by signal 9")
    with database.write() as session:
        held = claiming.claim_job(session, owner="w", devices=["auto"], lease_seconds=9)
        assert attempts.fail_job(session, held, crash, is_retryable=True) is Status.QUEUED
    with database.write() as session:
        held = claiming.claim_job(session, owner="w", devices=["auto"], lease_seconds=9)
        assert attempts.fail_job(session, held, crash, is_retryable=True) is Status.FAILED
    assert get(database, job_id).error["message"] == "killed by signal 9"
