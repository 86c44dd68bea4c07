"""What a supervisor writes: numbered without gaps, fenced, and told to Redis only while the lease is surely held."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import update

from core.jobs import attempts, claiming, publishing, store, sweeping
from core.jobs.database import Database
from core.jobs.events import NewEvent, list_events
from core.jobs.leases import LeaseLost
from core.jobs.models.jobs import Job
from core.progress import Publisher
from core.spec import MethodSpec
from tests.faults.parts import Redis
from worker.journal import GATHER_SECONDS, Journal

PROJECT = "proj-test"


@pytest.fixture
def publisher(redis_url: str, redis_client: redis.Redis) -> Iterator[Publisher]:
    publisher = Publisher(redis_url)
    yield publisher
    publisher.close()


def submit(database: Database) -> str:
    with database.write() as session:
        made = MethodSpec(method="pca", dataset="file-1")
        return store.create_job(session, project_id=PROJECT, spec=made, max_attempts=3).id


def claim(database: Database, publisher: Publisher, *, seconds: float = 60.0) -> Journal:
    asked_at = time.monotonic()
    with database.write() as session:
        held = claiming.claim_job(session, owner="w", devices=["auto"], lease_seconds=seconds)
    return Journal(held, database, publisher, lease_seconds=seconds, lease_ends=asked_at + seconds)


def in_sql(database: Database, job_id: str) -> list[tuple[int, int, str]]:
    with database.read() as session:
        return [(event.fence, event.seq, event.message) for event in list_events(session, job_id) if event.fence]


def in_redis(publisher: Publisher, job_id: str) -> list[tuple[int, int, str]]:
    return [(event.fence, event.seq, event.message) for event in publisher.published(job_id)]


def test_events_reach_redis_at_once_and_sql_with_the_next_write(database: Database, publisher: Publisher) -> None:
    job_id = submit(database)
    journal = claim(database, publisher)
    journal.open()
    journal.add(NewEvent("log", "a\0b\udc80"))  # what no database takes is replaced
    journal.publish()
    assert in_redis(publisher, job_id)[-1] == (1, 2, "a\N{REPLACEMENT CHARACTER}b?")
    assert len(in_sql(database, job_id)) == 1
    assert journal.write() is None
    journal.add(NewEvent("log", "last"))
    journal.progress = {"step": 9, "total": 9, "rate": 1.0, "at": 0.0}
    journal.close(lambda session: publishing.cancel_running_job(session, journal.claim, files=[], metrics={}))
    assert [seq for _, seq, _ in in_sql(database, job_id)] == [1, 2, 3, 4]
    assert in_redis(publisher, job_id) == in_sql(database, job_id)
    with database.read() as session:
        assert session.get_one(Job, job_id).progress["step"] == 9


def test_a_lost_workers_last_events_come_from_redis_into_sql(database: Database, publisher: Publisher) -> None:
    job_id = submit(database)
    lost = claim(database, publisher)
    lost.open()
    lost.metrics = {"loss": 2.0}
    lost.write()
    lost.add(NewEvent("log", "seen by a watcher only"))
    lost.publish()
    with database.write() as session:
        session.execute(update(Job).values(lease_expires_at=0.0))
        assert sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60)).requeued == [job_id]
    journal = claim(database, publisher)
    journal.open()
    assert (1, 2, "seen by a watcher only") in in_sql(database, job_id)
    journal.write()
    with database.read() as session:
        assert session.get_one(Job, job_id).metrics == {"loss": 2.0}


def test_nothing_is_told_once_the_lease_may_be_someone_elses(database: Database, publisher: Publisher) -> None:
    job_id = submit(database)
    late = claim(database, publisher, seconds=0.05)
    late.open()
    time.sleep(0.1)
    late.add(NewEvent("log", "late"))
    late.publish()
    assert "late" not in str(in_redis(publisher, job_id))
    with database.write() as session:
        sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60))
    with pytest.raises(LeaseLost):
        late.write()
    with pytest.raises(LeaseLost):
        late.close(lambda session: attempts.release_job(session, late.claim))
    assert "late" not in str(in_sql(database, job_id))
    assert "late" not in str(in_redis(publisher, job_id))


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """One that no other test's processes still speak to."""
    server = Redis()
    server.start()
    yield server
    server.close()


def test_many_steps_cost_redis_one_round_trip_a_moment(database: Database, own_redis: Redis) -> None:
    submit(database)
    redis_client, publisher = own_redis.client(), Publisher(own_redis.url)
    journal = claim(database, publisher)
    journal.open()
    commands, started_at = calls(redis_client), time.monotonic()
    for step in range(300):
        journal.add(NewEvent("metrics", data={"step": step, "values": {"loss": 0.5}}))
        journal.publish()
        time.sleep(0.001)
    moments = 1 + int((time.monotonic() - started_at) / GATHER_SECONDS)
    made = {name: count - commands.get(name, 0) for name, count in calls(redis_client).items()}
    assert 0 < made["expire"] <= moments  # one in each message, whose commands are answered together
    assert made["xadd"] <= 300
    assert {name for name, count in made.items() if count} == {"xadd", "expire", "info"}
    publisher.close()
    redis_client.close()


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command was executed."""
    return {name.removeprefix("cmdstat_"): told["calls"] for name, told in client.info("commandstats").items()}
