"""Pause and resume: what the row says at the end of an attempt decides."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select

from core.errors import Conflict, WeightworksError
from core.jobs import asking, attempts, checkpointing, leases, sweeping
from core.jobs.database import Database
from core.jobs.leases import Claim
from core.jobs.models.jobs import Attempt, Job
from core.jobs.status import Asked, Status
from tests.core.jobs.lines import PROJECT, claim, events_of, get, submit, succeed

CRASH = WeightworksError("killed by signal 9")


def change(database: Database, what, job_id: str) -> Job:
    with database.write() as session:
        return what(session, PROJECT, job_id)


def renew(database: Database, held: Claim) -> Asked | None:
    with database.write() as session:
        return leases.renew_lease(session, held, lease_seconds=60, progress=None, metrics={})


def release(database: Database, held: Claim) -> Status:
    with database.write() as session:
        return attempts.release_job(session, held)


def fail(database: Database, held: Claim, *, is_retryable: bool = True) -> Status:
    with database.write() as session:
        return attempts.fail_job(session, held, CRASH, is_retryable=is_retryable)


def sweep(database: Database) -> None:
    time.sleep(0.05)
    with database.write() as session:
        sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60))


def test_a_queued_job_is_paused_at_once_and_not_claimed(database: Database) -> None:
    job_id = submit(database)
    assert change(database, asking.pause_job, job_id).status is Status.PAUSED
    assert claim(database) is None
    with pytest.raises(Conflict, match="paused"):
        change(database, asking.pause_job, job_id)
    assert change(database, asking.resume_job, job_id).status is Status.QUEUED
    with pytest.raises(Conflict, match="queued"):
        change(database, asking.resume_job, job_id)
    assert claim(database).job_id == job_id


def test_a_running_job_is_paused_by_its_worker_and_no_attempt_is_used_up(database: Database) -> None:
    job_id = submit(database, max_attempts=1)
    for _ in range(3):
        held = claim(database)
        assert renew(database, held) is None
        assert change(database, asking.pause_job, job_id).pause_requested
        assert change(database, asking.pause_job, job_id).status is Status.RUNNING
        assert renew(database, held) is Asked.PAUSE
        assert release(database, held) is Status.PAUSED
        job = get(database, job_id)
        assert (job.status, job.attempt, job.pause_requested, job.owner) == (Status.PAUSED, 0, False, None)
        change(database, asking.resume_job, job_id)
    with database.read() as session:
        rows = session.scalars(select(Attempt).where(Attempt.job_id == job_id))
        assert [(row.attempt, row.outcome) for row in rows] == [(1, "paused")] * 3


def test_a_pause_that_was_not_acted_upon_is_taken_back(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    change(database, asking.pause_job, job_id)
    assert not change(database, asking.resume_job, job_id).pause_requested
    assert renew(database, held) is None
    with pytest.raises(Conflict, match="running"):
        change(database, asking.resume_job, job_id)
    change(database, asking.pause_job, job_id)
    renew(database, held)
    change(database, asking.resume_job, job_id)
    assert release(database, held) is Status.QUEUED  # the trainer had left off already


def test_a_cancel_beats_a_pause(database: Database) -> None:
    for end in (release, fail, lambda database, held: fail(database, held, is_retryable=False)):
        job_id = submit(database)
        held = claim(database)
        change(database, asking.pause_job, job_id)
        change(database, asking.cancel_job, job_id)
        with pytest.raises(Conflict, match="cancelled"):
            change(database, asking.pause_job, job_id)
        assert renew(database, held) is Asked.CANCEL
        assert end(database, held) is Status.CANCELLED


def test_who_finishes_or_errs_before_hearing_of_a_pause_has_done_so(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    change(database, asking.pause_job, job_id)
    succeed(database, held)
    assert (get(database, job_id).status, get(database, job_id).pause_requested) == (Status.SUCCEEDED, False)
    job_id = submit(database)
    held = claim(database)
    change(database, asking.pause_job, job_id)
    assert fail(database, held, is_retryable=False) is Status.FAILED


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_a_trainer_or_worker_that_dies_meanwhile_leaves_the_job_paused(database: Database, max_attempts: int) -> None:
    job_id = submit(database, max_attempts=max_attempts)
    held = claim(database)
    change(database, asking.pause_job, job_id)
    assert fail(database, held) is Status.PAUSED
    change(database, asking.resume_job, job_id)
    held = claim(database, seconds=0.01)
    with database.write() as session:
        attempts.forgive_attempt(session, held)
    change(database, asking.pause_job, job_id)
    sweep(database)
    job = get(database, job_id)
    assert (job.status, job.attempt) == (Status.PAUSED, 0)
    assert events_of(database, job_id)[-1] == ("3-1", "paused")
    change(database, asking.resume_job, job_id)
    claim(database, seconds=0.01)
    change(database, asking.pause_job, job_id)
    change(database, asking.cancel_job, job_id)
    sweep(database)
    assert get(database, job_id).status is Status.CANCELLED


def test_a_paused_job_is_cancelled_at_once_and_keeps_its_checkpoints(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    with database.write() as session:
        checkpointing.add_checkpoint(session, held, key="k", step=1, size=1, sha256="", metrics={})
    change(database, asking.pause_job, job_id)
    release(database, held)
    assert change(database, asking.cancel_job, job_id).status is Status.CANCELLED
    with database.read() as session:
        assert [row.key for row in checkpointing.list_checkpoints(session, job_id)] == ["k"]
    with pytest.raises(Conflict, match="cancelled"):
        change(database, asking.pause_job, job_id)
    with pytest.raises(Conflict, match="cancelled"):
        change(database, asking.resume_job, job_id)


def test_a_retry_forgets_both_requests(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    change(database, asking.pause_job, job_id)
    change(database, asking.cancel_job, job_id)
    release(database, held)
    job = change(database, asking.retry_job, job_id)
    assert (job.cancel_requested, job.pause_requested) == (False, False)
    assert renew(database, claim(database)) is None


def test_dependents_of_a_paused_job_wait_and_fail_with_it(database: Database) -> None:
    teacher = submit(database)
    student = submit(database, needs={"teacher": teacher})
    for job_id in (teacher, student):
        change(database, asking.pause_job, job_id)
    change(database, asking.resume_job, student)
    assert claim(database) is None
    change(database, asking.cancel_job, teacher)
    assert get(database, student).status is Status.FAILED
