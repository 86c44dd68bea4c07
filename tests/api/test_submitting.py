"""Submissions that are written together: each is made once or refused by itself, at the price of one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.exc import OperationalError

from api.announcing import Announcer
from api.answers.jobs import JobObject
from api.dependencies import Caller
from api.idempotency import Envelope
from api.submitting import Submission, Submissions
from core.catalog import read_spec
from core.data.profile import Kind, Profile
from core.errors import Conflict, NotFound, QuotaReached
from core.jobs.database import Database
from core.jobs.files import add_file
from core.jobs.models.jobs import Event, Job
from core.jobs.models.projects import Project
from core.jobs.status import Role
from core.progress import Publisher
from core.settings import Settings
from tests.conftest import PROJECT

PROFILE = Profile(Kind.TABLE, "csv", 20, columns=("a", "b", "c"), shape=(3,)).as_dict()
CALLER = Caller("key-test", PROJECT, "test", Role.WRITE)


class Desk:
    """What takes submissions, and what it tells others of them."""

    def __init__(self, database: Database, redis_url: str, file_id: str) -> None:
        self.database, self.file_id = database, file_id
        self.woken: list[str] = []
        self.publisher = Publisher(redis_url)
        self.announcer = Announcer(self.publisher, self._wake)
        self.submit = Submissions(database, self.announcer, Settings())

    def _wake(self, device: str) -> bool:
        self.woken.append(device)
        return True

    def submission(self, seed: int, *, key: str | None = None, tried: int = 0, file_id: str = "") -> Submission:
        body = {"method": "pca", "n_components": 2, "dataset": file_id or self.file_id, "seed": seed}
        envelope = Envelope(CALLER, "/v1/jobs", key, tried, time.monotonic())
        return Submission(envelope, read_spec(body))

    def made(self) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(Job.id)))


@pytest.fixture
def desk(database: Database, redis_url: str) -> Iterator[Desk]:
    with database.write() as session:
        told = {"filename": "table.csv", "purpose": "dataset", "size": 1, "sha256": "0" * 64, "profile": PROFILE}
        file_id = add_file(session, PROJECT, **told).id
    desk = Desk(database, redis_url, file_id)
    yield desk
    desk.announcer.close()
    desk.publisher.close()


def ids_of(answers: Sequence[JobObject | Exception]) -> list[str]:
    assert not [one for one in answers if isinstance(one, Exception)], answers
    return [one.id for one in answers if isinstance(one, JobObject)]


class Statements:
    """Counts what is sent to the database while the block runs."""

    def __init__(self, database: Database) -> None:
        self._engine, self.sent, self.commits = database.engine, [], 0

    def _note(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        self.sent.append(statement)

    def _note_commit(self, connection: Any) -> None:
        self.commits += 1

    def __enter__(self) -> Statements:
        event.listen(self._engine, "before_cursor_execute", self._note)
        event.listen(self._engine, "commit", self._note_commit)
        return self

    def __exit__(self, *_: Any) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)
        event.remove(self._engine, "commit", self._note_commit)


def test_many_submissions_take_one_transaction_and_no_more_statements_than_two(desk: Desk) -> None:
    ids_of(desk.submit([desk.submission(seed) for seed in range(3)]))  # what is learned once is learned
    with Statements(desk.database) as two:
        ids_of(desk.submit([desk.submission(seed) for seed in range(10, 12)]))
    with Statements(desk.database) as many:
        made = ids_of(desk.submit([desk.submission(seed) for seed in range(100, 164)]))
    assert len(set(made)) == 64
    assert many.commits == two.commits == 1
    assert len(many.sent) == len(two.sent) <= 20, "\n".join(many.sent)


def test_each_has_its_first_event_and_is_queued(desk: Desk) -> None:
    made = ids_of(desk.submit([desk.submission(seed) for seed in range(5)]))
    with desk.database.read() as session:
        events = session.scalars(select(Event)).all()
    assert sorted(one.job_id for one in events) == sorted(made) == sorted(desk.made())
    assert {(one.fence, one.seq, one.data["status"]) for one in events} == {(0, 1, "queued")}


def test_one_that_is_refused_leaves_the_others_alone(desk: Desk) -> None:
    with Statements(desk.database) as told:
        refused = desk.submission(2, file_id="file-no")
        first, answer, last = desk.submit([desk.submission(1), refused, desk.submission(3)])
    assert isinstance(answer, NotFound)
    assert ids_of([first, last]) == sorted(desk.made())
    assert told.commits == 1


def test_a_quota_counts_those_that_are_written_with_it(desk: Desk) -> None:
    with desk.database.write() as session:
        session.execute(update(Project).values(max_unfinished_jobs=3))
    answers = desk.submit([desk.submission(seed) for seed in range(5)])
    assert [isinstance(one, QuotaReached) for one in answers] == [False] * 3 + [True] * 2
    assert len(desk.made()) == 3


def test_the_same_name_makes_one_job_and_with_another_body_none(desk: Desk) -> None:
    same = [desk.submission(1, key="mine") for _ in range(3)]
    *answers, other = desk.submit([*same, desk.submission(2, key="mine")])
    assert isinstance(other, Conflict)
    assert len(set(ids_of(answers))) == 1 == len(desk.made())


def test_tries_that_come_together_make_one_job(desk: Desk) -> None:
    repeats = [desk.submission(1, tried=tried) for tried in (2, 1, 0)]
    assert len(set(ids_of(desk.submit(repeats)))) == 1
    again = ids_of(desk.submit([desk.submission(1), desk.submission(1)]))
    assert len(set(again)) == 2, "sent twice on purpose"
    assert len(desk.made()) == 3


def test_what_may_have_been_committed_is_not_written_again(desk: Desk) -> None:
    commits = 0

    def commit_and_fall_silent(connection: Any) -> None:
        nonlocal commits
        commits += 1
        connection.connection.commit()
        raise OperationalError("COMMIT", {}, Exception("the answer is lost"))

    event.listen(desk.database.engine, "commit", commit_and_fall_silent)
    try:
        with pytest.raises(OperationalError):
            desk.submit([desk.submission(seed) for seed in range(3)])
    finally:
        event.remove(desk.database.engine, "commit", commit_and_fall_silent)
    assert commits == 1
    assert len(desk.made()) == 3


def test_what_spoils_a_transaction_is_its_own_trouble(desk: Desk) -> None:
    """A row that the database refuses, which no check foresees."""
    odd = desk.submission(2)
    odd = replace(odd, envelope=replace(odd.envelope, caller=replace(CALLER, project_id="proj-gone")), spec=odd.spec)
    first, answer, last = desk.submit([desk.submission(1, key="a"), odd, desk.submission(3, key="b")])
    assert isinstance(answer, Exception)
    assert ids_of([first, last]) == sorted(desk.made())


def test_as_many_are_woken_as_there_are(desk: Desk) -> None:
    desk.submit([desk.submission(seed) for seed in range(20)])
    desk.announcer.close()
    assert desk.woken == ["auto"], "no worker tells of itself: one may be about to"


def test_those_that_wait_for_each_other_in_any_order_all_get_done(desk: Desk) -> None:
    seeds = range(12)

    def submit(order: Sequence[int]) -> dict[int, str]:
        return dict(zip(order, ids_of(desk.submit([desk.submission(seed, tried=1) for seed in order])), strict=True))

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(submit, [seeds, seeds[::-1], [*seeds[6:], *seeds[:6]], seeds[::-1]]))
    assert all(one == found[0] for one in found)
    assert len(desk.made()) == len(seeds)
