"""Whose turn it is: between projects, within one, and for many claimers at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import func, insert, select, update

from core.jobs import leases, store
from core.jobs.database import Database
from core.jobs.models.jobs import Dependency, Job
from core.jobs.models.projects import Project
from core.jobs.quotas import UNLIMITED
from core.jobs.status import Status
from core.jobs.waiting import WaitsFor, waiting_devices, waits_of
from core.jobs.workers import ask_to_drain, beat
from core.spec import MethodSpec
from tests.core.jobs.lines import claim, submit, succeed


@pytest.fixture
def projects(database: Database) -> list[str]:
    """Five, beside the one that is there."""
    ids = [f"proj-{number}" for number in range(5)]
    with database.write() as session:
        session.add_all(Project(id=one, name=one, created_at=0) for one in ids)
        beat(session, "w", host="here", has_gpu=True, is_draining=False, is_asked=False)
    return ids


def submit_to(database: Database, project_id: str, count: int = 1, **spec) -> list[str]:
    made = MethodSpec(method="pca", dataset="file-1", **spec)
    with database.write() as session:
        return [store.create_job(session, project_id=project_id, spec=made, max_attempts=3).id for _ in range(count)]


def test_a_thousand_jobs_do_not_starve_one(database: Database, projects: list[str]) -> None:
    submit_to(database, projects[0], 30, priority=100)
    claim(database)
    (lonely,) = submit_to(database, projects[1], priority=-100)
    assert claim(database).job_id == lonely


def test_projects_take_turns_and_each_goes_by_priority_then_age(database: Database, projects: list[str]) -> None:
    first, second = (submit_to(database, one, 2) for one in projects[:2])
    urgent = submit_to(database, projects[0], priority=1)
    assert [claim(database).job_id for _ in range(5)] == [urgent[0], second[0], first[0], second[1], first[1]]


def test_jobs_of_one_moment_go_in_the_order_in_which_they_came(database: Database, projects: list[str]) -> None:
    jobs = submit_to(database, projects[0], 20)
    assert [claim(database).job_id for _ in jobs] == jobs


def test_who_was_served_longest_ago_is_next_where_all_run_equally_many(database: Database, projects: list[str]) -> None:
    for one in projects[:3]:
        submit_to(database, one, 3)
    served = []
    for _ in range(6):
        held = claim(database)
        served.append(held.project_id)
        succeed(database, held)
    assert served == projects[:3] * 2


def test_a_worker_gets_nothing_from_the_moment_it_is_asked_to_drain(database: Database, projects: list[str]) -> None:
    submit_to(database, projects[0], 2)
    assert claim(database, owner="w") is not None
    for should_drain in (True, False):
        with database.write() as session:
            ask_to_drain(session, "w", should_drain=should_drain)
        assert (claim(database, owner="w") is None) is should_drain


def test_a_project_that_may_run_no_more_is_passed_over(database: Database, projects: list[str]) -> None:
    with database.write() as session:
        session.execute(update(Project).where(Project.id == projects[0]).values(max_running_jobs=1))
    submit_to(database, projects[0], 3)
    held = claim(database)
    assert claim(database) is None
    (other,) = submit_to(database, projects[1])
    assert claim(database).job_id == other
    succeed(database, held)
    assert claim(database).project_id == projects[0]


@pytest.mark.parametrize("limit", [1, 3])
def test_many_claimers_at_once_get_each_job_once_and_keep_to_the_limit(
    database: Database, projects: list[str], limit: int
) -> None:
    with database.write() as session:
        session.execute(update(Project).values(max_running_jobs=limit))
    jobs = [job for one in projects for job in submit_to(database, one, 40)]
    done: list[str] = []
    most: Counter[str] = Counter()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            held: list[leases.Claim] = []
            while len(done) < len(jobs) and not errors:
                found = claim(database, owner=threading.current_thread().name)
                if found is not None:
                    held.append(found)
                    for project_id, count in running(database):
                        most[project_id] = max(most[project_id], count)
                if held and (found is None or len(held) > 1):
                    succeed(database, held[0])
                    done.append(held.pop(0).job_id)
                elif found is None:
                    time.sleep(0.002)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, name=f"w-{number}") for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(done) == sorted(jobs)
    assert 1 <= max(most.values()) <= limit


def running(database: Database) -> Iterator[tuple[str, int]]:
    with database.read() as session:
        query = select(Job.project_id, func.count()).where(Job.status == Status.RUNNING).group_by(Job.project_id)
        return iter([(project_id, count) for project_id, count in session.execute(query)])


def test_many_queued_jobs_and_many_that_cannot_start_cost_a_claim_little(
    database: Database, projects: list[str]
) -> None:
    """A claim that read all of them would take seconds; this one must take a fraction of one."""
    first = submit(database)
    with database.read() as session:
        row = dict(session.execute(select(Job.__table__).where(Job.id == first)).mappings().one())
    crowd = [{**row, "id": f"job-{number:06}", "project_id": projects[0]} for number in range(20_000)]
    needy = [{**row, "id": f"need-{number:06}", "project_id": projects[1], "priority": 9} for number in range(3000)]
    on_gpu = [{**row, "id": f"gpu-{number:06}", "project_id": projects[2], "device": "cuda"} for number in range(9000)]
    with database.write() as session:
        session.execute(insert(Job), [*crowd, *needy, *on_gpu])
        needs = [{"job_id": one["id"], "field": "teacher", "needs_id": first} for one in needy]
        session.execute(insert(Dependency), needs)
    started = time.monotonic()
    for _ in range(10):
        claim(database)
    with database.read() as session:
        assert len(waiting_devices(session, older_than=-9, limit=3)) == 6
        last = session.get_one(Job, crowd[400]["id"])
        waits = waits_of(session, projects[0], [last], defaults=UNLIMITED, beat_seconds=60)
    assert waits[last.id].what is WaitsFor.FREE_WORKER
    assert time.monotonic() - started < 10
