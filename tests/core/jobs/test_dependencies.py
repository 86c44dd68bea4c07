"""Jobs that take the weights of others."""

from __future__ import annotations

from core.errors import WeightworksError
from core.jobs import attempts
from core.jobs.database import Database
from core.jobs.status import Status
from tests.core.jobs.lines import claim, get, submit, succeed


def test_a_job_waits_for_the_weights_it_needs(database: Database) -> None:
    teacher = submit(database)
    student = submit(database, needs={"teacher": teacher}, priority=9)
    held = claim(database)
    assert held.job_id == teacher
    assert claim(database) is None
    succeed(database, held)
    assert claim(database).job_id == student


def test_a_failed_need_fails_the_whole_chain_at_once(database: Database) -> None:
    teacher = submit(database)
    student = submit(database, needs={"teacher": teacher})
    grandchild = submit(database, needs={"base": student})
    held = claim(database)
    with database.write() as session:
        attempts.fail_job(session, held, WeightworksError("no"), is_retryable=False)
    for job_id, needed in ((student, teacher), (grandchild, student)):
        job = get(database, job_id)
        assert job.status is Status.FAILED
        assert needed in job.error["message"]
    late = submit(database, needs={"teacher": teacher})
    assert get(database, late).status is Status.FAILED
