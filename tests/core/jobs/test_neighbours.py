"""Files, keys, models, and what is told of jobs, on SQLite and PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from core.errors import Conflict, NotFound
from core.jobs import asking, claiming, deletion, files, inputs, keys, publishing, store, trained_models
from core.jobs.artifacts import Published
from core.jobs.database import Database
from core.jobs.details import details_of
from core.jobs.events import NewEvent, as_row, each_data, insert_events, list_events
from core.jobs.models.files import File
from core.jobs.models.projects import ApiKey, Project
from core.jobs.names import find_named
from core.jobs.status import Role
from core.jobs.waiting import waiting_devices
from core.jobs.workers import beat
from core.settings import Settings
from core.spec import MethodSpec

PROJECT = "proj-test"


def add_file(database: Database, **changes) -> File:
    told = {"filename": "a", "purpose": "dataset", "size": 1, "sha256": "0" * 64, "profile": {"kind": "table"}}
    with database.write() as session:
        return files.add_file(session, PROJECT, **{**told, **changes})


def submit(database: Database, dataset: str, *, needs: dict[str, str] | None = None, **spec) -> str:
    with database.write() as session:
        made = MethodSpec(method="pca", dataset=dataset, **spec)
        return store.create_job(session, project_id=PROJECT, spec=made, max_attempts=3, needs=needs).id


def succeed(database: Database, job_id: str) -> str:
    with database.write() as session:
        claim = claiming.claim_job(session, owner="w", devices=("auto",), lease_seconds=60)
        assert claim.job_id == job_id
        file = Published("model.safetensors", "k", 3, "0" * 64, "application/octet-stream")
        return publishing.succeed_job(session, claim, files=[file], metrics={}, lineage={})


def test_a_file_stays_while_a_job_needs_it(database: Database) -> None:
    file = add_file(database)
    job_id = submit(database, file.id)
    with pytest.raises(Conflict, match=job_id), database.write() as session:
        files.delete_file(session, PROJECT, file.id)
    succeed(database, job_id)
    with database.write() as session:
        files.lock_file(session, PROJECT, file.id, param="dataset")
        files.delete_file(session, PROJECT, file.id)
        assert not files.is_content_used(session, file.sha256)
    with pytest.raises(NotFound), database.write() as session:
        files.lock_file(session, PROJECT, file.id, param="dataset")


def test_models_of_both_kinds_are_one_list(database: Database) -> None:
    uploaded = add_file(database, purpose=files.BASE_MODEL, profile=None)
    data = add_file(database)
    model_id = succeed(database, submit(database, data.id))
    with database.read() as session:
        listed = trained_models.list_models(session, PROJECT, order="asc")
        assert {model.id for model in listed} == {uploaded.id, model_id}
        rest = trained_models.list_models(session, PROJECT, order="asc", after=listed[0].id)
        assert [model.id for model in rest] == [listed[1].id]
        with pytest.raises(NotFound):
            find_named(session, PROJECT, data.id)
    with database.write() as session:
        assert deletion.delete_trained_model(session, PROJECT, model_id) == ["k"]


def test_a_model_stays_while_a_job_starts_from_it(database: Database) -> None:
    data = add_file(database)
    first = submit(database, data.id)
    model_id = succeed(database, first)
    submit(database, data.id, needs={"teacher": first})
    with pytest.raises(Conflict), database.write() as session:
        deletion.delete_trained_model(session, PROJECT, model_id)


def test_details_tell_places_needs_and_models(database: Database) -> None:
    first, second, urgent = (
        submit(database, "file-1"),
        submit(database, "file-1"),
        submit(database, "file-1", priority=9),
    )
    needy = submit(database, "file-1", needs={"teacher": first})
    with database.write() as session:
        session.add(Project(id="proj-other", name="other", created_at=0))
        session.flush()
        made = MethodSpec(method="pca", dataset="file-1", priority=50)
        store.create_job(session, project_id="proj-other", spec=made, max_attempts=1)
        beat(session, "w", host="here", has_gpu=False, is_draining=False, is_asked=False)
    with database.read() as session:
        jobs = store.list_jobs(session, PROJECT)
        details = details_of(session, PROJECT, jobs, Settings())
        assert {job_id: found.wait and found.wait.position for job_id, found in details.items()} == {
            urgent: 2,
            first: 3,
            second: 4,
            needy: None,
        }
        assert details[second].wait.ahead == [urgent, first]
        assert [(need.field, need.job_id) for need in details[needy].needs] == [("teacher", first)]
        assert sorted(waiting_devices(session, older_than=-5, limit=3)) == ["auto"] * 3
        assert waiting_devices(session, older_than=60, limit=3) == []


def test_metadata_with_any_name_finds_its_job(database: Database) -> None:
    odd = {'a"b': "1", "c.d": "2", "$": "3", "e'f\\": "é"}
    job_id = submit(database, "file-1", metadata=odd)
    submit(database, "file-1", metadata={"a": "1"})
    with database.read() as session:
        for name, value in odd.items():
            assert [job.id for job in store.list_jobs(session, PROJECT, metadata={name: value})] == [job_id]
            assert store.list_jobs(session, PROJECT, metadata={name: "other"}) == []


def test_events_of_an_attempt_and_their_data(database: Database) -> None:
    job_id = submit(database, "file-1")
    events = [NewEvent("log", f"{index}", data={"attempt": 1 + index // 2}) for index in range(4)]
    with database.write() as session:
        insert_events(session, [as_row(job_id, 1, seq, event, now=0.0) for seq, event in enumerate(events, 1)])
    with database.read() as session:
        assert [event.message for event in list_events(session, job_id, types=["log"], attempt=2)] == ["2", "3"]
        assert [data["attempt"] for data in each_data(session, job_id, "log")] == [1, 1, 2, 2]


def test_keys_are_found_by_what_they_are_and_kept_as_a_hash(database: Database) -> None:
    with database.write() as session:
        row, secret = keys.create_key(session, PROJECT, name="robot", role=Role.WRITE)
    with database.read() as session:
        found = keys.find_keys(session, [secret, secret + "x"])
        assert found == {secret: keys.Holder(row.id, Role.WRITE, PROJECT, "test")}
        assert secret not in str(vars(session.get(ApiKey, row.id)))
    with database.write() as session:
        keys.delete_key(session, PROJECT, row.id)
    with database.read() as session:
        assert keys.find_keys(session, [secret]) == {}


def test_the_admin_key_is_made_once_by_however_many_processes(database: Database) -> None:
    def start(_: int) -> None:
        with database.write() as session:
            keys.ensure_admin_key(session, "ww-admin")

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(start, range(6)))
    with database.read() as session:
        holder = keys.find_keys(session, ["ww-admin"])["ww-admin"]
        assert (holder.role, holder.project_name) == (Role.ADMIN, keys.DEFAULT_PROJECT)
        assert len(session.scalars(select(ApiKey)).all()) == 1


def test_an_expired_file_is_gone_unless_a_job_that_has_not_ended_needs_it(database: Database) -> None:
    gone, needed, kept = (add_file(database, keep_seconds=seconds) for seconds in (-1, -1, 60))
    add_file(database, purpose=files.BASE_MODEL, keep_seconds=-1)
    job_id = submit(database, needed.id)

    def listed() -> set[str]:
        with database.read() as session:
            assert trained_models.list_models(session, PROJECT) == []
            return {file.id for file in files.list_files(session, PROJECT)}

    assert listed() == {needed.id, kept.id}
    with pytest.raises(NotFound), database.write() as session:
        files.lock_file(session, PROJECT, gone.id, param="dataset")
    with database.read() as session:
        found = inputs.resolve_references(
            session, project_id=PROJECT, job_id=job_id, files={"dataset": needed.id}, models={}
        )
        assert found["dataset"].file_id == needed.id
        assert inputs.rows_of(session, PROJECT, [gone.id, needed.id]).keys() == {needed.id}
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    assert listed() == {kept.id}
