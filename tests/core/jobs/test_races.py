"""Two transactions at once, on SQLite and PostgreSQL: the second begins while the first is open."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import psycopg
import pytest
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound, WeightworksError
from core.jobs import (
    asking,
    attempts,
    checkpointing,
    deletion,
    files,
    inputs,
    leases,
    publishing,
    retention,
    store,
    sweeping,
    uploads,
)
from core.jobs.database import Database
from core.jobs.events import NewEvent, as_row, insert_events, list_events
from core.jobs.ids import new_id
from core.jobs.models.jobs import Job
from core.jobs.status import Status, UploadStatus
from core.spec import MethodSpec
from tests.core.jobs.test_retention import PROJECT, add_checkpoint, add_file, add_upload, claim, submit, succeed

HEAD_START = 0.3


def race(database: Database, first: Callable[[Session], Any], second: Callable[[Session], Any]) -> Any:
    """What `second` answers or raises; it has time to end before `first` commits, unless it must wait for that."""

    def run() -> Any:
        try:
            with database.write() as session:
                return second(session)
        except WeightworksError as error:
            return error

    with ThreadPoolExecutor(1) as threads:
        with database.write() as session:
            first(session)
            running = threads.submit(run)
            wait([running], timeout=HEAD_START)
        return running.result()


def status_of(database: Database, job_id: str) -> Status:
    with database.read() as session:
        return store.get_job(session, PROJECT, job_id).status


def new_job(session: Session, dataset: str = "file-1", *, needs: dict[str, str] | None = None, **spec: Any) -> Job:
    made = MethodSpec(method="pca", dataset=dataset, **spec)
    return store.create_job(session, project_id=PROJECT, spec=made, max_attempts=3, needs=needs)


def fail(session: Session, held: leases.Claim) -> None:
    attempts.fail_job(session, held, WeightworksError("no"), is_retryable=False)


def test_a_job_that_is_submitted_while_what_it_needs_fails_fails_too(database: Database) -> None:
    needed = submit(database, "file-1")
    held = claim(database, needed)
    made: list[Job] = []
    race(
        database,
        lambda session: made.append(new_job(session, needs={"teacher": needed})),
        lambda session: fail(session, held),
    )
    assert status_of(database, made[0].id) is Status.FAILED


def test_a_job_that_is_retried_while_what_it_needs_fails_again_fails_too(database: Database) -> None:
    needed = submit(database, "file-1")
    dependent = submit(database, "file-1", needs={"teacher": needed})
    with database.write() as session:
        asking.cancel_job(session, PROJECT, needed)
        asking.retry_job(session, PROJECT, needed)
    held = claim(database, needed)
    race(
        database,
        lambda session: asking.retry_job(session, PROJECT, dependent),
        lambda session: fail(session, held),
    )
    assert status_of(database, dependent) is Status.FAILED


def succeed_with(session: Session, held: leases.Claim) -> None:
    publishing.succeed_job(session, held, files=[], metrics={}, lineage={})


def lacks_weights(database: Database, job_id: str) -> bool:
    with database.read() as session:
        return store.get_job(session, PROJECT, job_id).lacks_weights


def test_a_job_whose_two_needs_succeed_at_once_can_be_claimed(database: Database) -> None:
    held = [claim(database, submit(database, "file-1")) for _ in range(2)]
    with database.write() as session:
        needy = new_job(session, needs={"teacher": held[0].job_id, "student": held[1].job_id})
    assert lacks_weights(database, needy.id)
    race(database, lambda session: succeed_with(session, held[0]), lambda session: succeed_with(session, held[1]))
    assert not lacks_weights(database, needy.id)
    claim(database, needy.id)


def test_a_job_that_is_submitted_while_what_it_needs_succeeds_can_be_claimed(database: Database) -> None:
    for is_first in (True, False):
        held = claim(database, submit(database, "file-1"))
        made: list[Job] = []

        def build(session: Session, held: leases.Claim = held, made: list[Job] = made) -> None:
            made.append(new_job(session, needs={"teacher": held.job_id}))

        def end(session: Session, held: leases.Claim = held) -> None:
            succeed_with(session, held)

        race(database, *((build, end) if is_first else (end, build)))
        assert not lacks_weights(database, made[0].id)
        claim(database, made[0].id)


@pytest.mark.parametrize("by", ["id", "job"])
@pytest.mark.parametrize("deleted", ["model", "job", "old model"])
def test_what_a_job_starts_from_is_not_deleted_while_that_is_submitted(
    database: Database, by: str, deleted: str
) -> None:
    maker = submit(database, "file-1")
    model = succeed(database, claim(database, maker))

    def build_on_it(session: Session) -> None:
        if by == "id":
            inputs.lock_model(session, PROJECT, model, param="teacher")
            new_job(session, name=model)  # stands for a field that names a model: the specs here have none
        else:
            store.lock_job(session, PROJECT, maker, param="teacher")
            new_job(session, needs={"teacher": maker})

    def delete(session: Session) -> Any:
        if deleted == "model":
            return deletion.delete_trained_model(session, PROJECT, model)
        if deleted == "job":
            return deletion.delete_job(session, PROJECT, maker)
        return retention.drop_artifacts(session, maker, days=-1)

    answer = race(database, build_on_it, delete)
    assert answer == [] if deleted == "old model" else isinstance(answer, Conflict)
    with database.read() as session:
        assert inputs.get_model(session, PROJECT, model).job_id == maker


@pytest.mark.parametrize("deleted", ["model", "job"])
def test_a_job_is_not_submitted_on_what_is_being_deleted(database: Database, deleted: str) -> None:
    maker = submit(database, "file-1")
    model = succeed(database, claim(database, maker))

    def delete(session: Session) -> None:
        if deleted == "model":
            deletion.delete_trained_model(session, PROJECT, model)
        else:
            deletion.delete_job(session, PROJECT, maker)

    lock = lambda session: inputs.lock_model(session, PROJECT, model, param="teacher")  # noqa: E731
    assert isinstance(race(database, delete, lock), NotFound)


def test_what_a_job_goes_on_from_is_not_collected_while_that_is_retried(database: Database) -> None:
    job_id = submit(database, "file-1")
    held = claim(database, job_id)
    add_checkpoint(database, held)
    with database.write() as session:
        fail(session, held)
    answers = []
    for collect in (
        lambda session: retention.drop_checkpoints(session, job_id, days=-1),
        lambda session: deletion.delete_job(session, PROJECT, job_id),
    ):
        answers.append(race(database, lambda session: asking.retry_job(session, PROJECT, job_id), collect))
        with database.write() as session:
            asking.cancel_job(session, PROJECT, job_id)
    assert answers[0] == []
    assert isinstance(answers[1], Conflict)
    with database.read() as session:
        assert len(checkpointing.list_checkpoints(session, job_id)) == 1


def test_an_upload_ends_once(database: Database) -> None:
    def complete(session: Session) -> None:
        file = inputs.get_file(session, PROJECT, file_id)
        uploads.complete_upload(session, PROJECT, upload_id, file)

    def complete_too(session: Session) -> str:
        try:
            complete(session)
        except uploads.AlreadyCompleted:
            return "already"
        return "twice"

    def cancel(session: Session) -> Any:
        return uploads.cancel_upload(session, PROJECT, upload_id)

    def add(session: Session) -> Any:
        return uploads.add_part(session, PROJECT, upload_id, new_id("part"), size=1, sha256="0" * 64, md5="0" * 32)

    file_id = add_file(database)
    outcomes = []
    for second in (complete_too, cancel, add):
        upload_id = add_upload(database, UploadStatus.PENDING, 1, 2)
        outcomes.append(race(database, complete, second))
        with database.read() as session:
            upload = uploads.get_upload(session, PROJECT, upload_id)
            assert (upload.status, upload.file_id) == (UploadStatus.COMPLETED, file_id)
            assert uploads.list_parts(session, upload_id) == []
    assert outcomes[0] == "already"
    assert all(isinstance(outcome, Conflict) and "completed" in outcome.message for outcome in outcomes[1:])


def test_who_completes_an_upload_whose_parts_are_just_going_finds_it_completed(database: Database) -> None:
    upload_id, file_id = add_upload(database, UploadStatus.PENDING, 1, 2), add_file(database)
    with database.read() as session:
        part_ids = [part.id for part in uploads.list_parts(session, upload_id)]

    def complete(session: Session) -> None:
        uploads.complete_upload(session, PROJECT, upload_id, inputs.get_file(session, PROJECT, file_id))

    def complete_too(session: Session) -> str:
        try:
            uploads.parts_to_join(session, PROJECT, upload_id, part_ids)
        except uploads.AlreadyCompleted:
            return "already"
        return "pending"

    assert race(database, complete, complete_too) == "already"


def test_an_expired_file_is_not_collected_while_a_job_takes_it(database: Database) -> None:
    file_id = add_file(database)
    with database.write() as session:
        inputs.get_file(session, PROJECT, file_id).expires_at = 1
    job_id = submit(database, file_id)

    def use(session: Session) -> None:
        files.lock_file(session, PROJECT, file_id, param="dataset")
        new_job(session, file_id)
        asking.cancel_job(session, PROJECT, job_id)

    assert race(database, use, lambda session: retention.delete_expired_file(session, file_id)) is None


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_job_whose_lost_worker_is_writing_its_events_is_passed_over(database: Database) -> None:
    job_id = submit(database, "file-1")
    held = claim(database, job_id)
    said = [as_row(job_id, held.fence, 2, NewEvent("log", "the last words"), now=1.0)]
    with database.read() as session:
        suspects = sweeping.held_leases(session)
    swept = race(
        database,
        lambda session: insert_events(session, said),
        lambda session: sweeping.sweep_expired(session, suspects, said),
    )
    assert swept.requeued == []
    with database.write() as session:
        assert sweeping.sweep_expired(session, suspects, said).requeued == [job_id]


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_no_batch_is_sent_as_a_pipeline(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the midst of one PostgreSQL would wait for ever for a process that is stopped, and keep its locks."""
    jobs = [submit(database, "file-1"), submit(database, "file-1")]
    held = claim(database, jobs[0])
    monkeypatch.setattr(psycopg.Cursor, "executemany", None)  # what opens pipelines
    with database.write() as session:
        lines = [as_row(held.job_id, held.fence, seq, NewEvent("log"), now=1.0) for seq in range(2, 2002)]
        insert_events(session, lines)
        for job_id in jobs:
            session.get_one(Job, job_id).metrics = {"loss": 1.0}  # two UPDATEs at once
    with database.read() as session:
        assert len(list_events(session, held.job_id, limit=3000)) == 2002
        assert [session.get_one(Job, job_id).metrics for job_id in jobs] == [{"loss": 1.0}] * 2
