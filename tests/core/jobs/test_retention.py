"""What a project has stored, and what of it may go, on SQLite and PostgreSQL."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import select

from core.errors import Conflict, NotFound
from core.jobs import (
    asking,
    checkpointing,
    claiming,
    deletion,
    files,
    inputs,
    leases,
    pipelines,
    publishing,
    retention,
    store,
    uploads,
)
from core.jobs.artifacts import Published
from core.jobs.database import Database
from core.jobs.events import NewEvent, as_row, insert_events, list_events
from core.jobs.idempotency import find_submission
from core.jobs.ids import new_id
from core.jobs.inputs import model_of_job
from core.jobs.models.base import Base
from core.jobs.models.files import File, Upload, UploadPart
from core.jobs.models.jobs import Event, Job, Pipeline
from core.jobs.models.projects import Project
from core.jobs.models.results import Artifact, Checkpoint
from core.jobs.models.submissions import IdempotencyKey, Submission
from core.jobs.status import UploadStatus
from core.spec import MethodSpec

PROJECT = "proj-test"


def add_file(database: Database, *, size: int = 1, project_id: str = PROJECT) -> str:
    told = {"filename": "a", "purpose": "dataset", "sha256": "0" * 64, "profile": {"kind": "table"}}
    with database.write() as session:
        return files.add_file(session, project_id, size=size, **told).id


def submit(
    database: Database, dataset: str, *, needs: dict[str, str] | None = None, pipeline: str | None = None, **spec
) -> str:
    with database.write() as session:
        made = MethodSpec(method="pca", dataset=dataset, **spec)
        options = {"max_attempts": 3, "needs": needs, "pipeline_id": pipeline}
        return store.create_job(session, project_id=PROJECT, spec=made, **options).id


def claim(database: Database, job_id: str) -> leases.Claim:
    with database.write() as session:
        found = claiming.claim_job(session, owner="w", devices=("auto",), lease_seconds=60)
    assert found.job_id == job_id
    return found


def add_checkpoint(database: Database, held: leases.Claim, step: int = 1, *, size: int = 1) -> str:
    key = f"jobs/{held.job_id}/{held.fence}/checkpoints/{step}"
    with database.write() as session:
        checkpointing.add_checkpoint(session, held, key=key, step=step, size=size, sha256="0" * 64, metrics={})
    return key


def succeed(database: Database, held: leases.Claim, *, size: int = 1) -> str:
    key = f"jobs/{held.job_id}/{held.fence}/artifacts/m"
    file = Published("m", key, size, "0" * 64, "application/octet-stream")
    with database.write() as session:
        return publishing.succeed_job(session, held, files=[file], metrics={}, lineage={})


def add_upload(database: Database, status: UploadStatus, *sizes: int) -> str:
    told = {"filename": "a", "purpose": "dataset", "mime_type": "text/csv", "bytes": 9}
    now = int(time.time())
    upload = Upload(id=new_id("upload"), project_id=PROJECT, status=status, created_at=now, expires_at=now + 60, **told)
    with database.write() as session:
        session.add(upload)
        session.flush()
        for size in sizes:
            part = {"bytes": size, "sha256": "0" * 64, "md5": "0" * 32, "created_at": now}
            session.add(UploadPart(id=new_id("part"), upload_id=upload.id, **part))
    return upload.id


def test_stored_bytes_are_those_of_files_artifacts_checkpoints_and_pending_parts(database: Database) -> None:
    with database.write() as session:
        session.add(Project(id="proj-other", name="other", created_at=0))
        session.flush()
        assert retention.stored_bytes(session, PROJECT) == 0
    add_file(database, size=2**40, project_id="proj-other")
    job_id = submit(database, add_file(database, size=1))
    held = claim(database, job_id)
    add_checkpoint(database, held, size=10)
    succeed(database, held, size=100)
    add_upload(database, UploadStatus.PENDING, 1000, 10_000)
    add_upload(database, UploadStatus.CANCELLED, 7)
    with database.read() as session:
        assert retention.stored_bytes(session, PROJECT) == 11111
        assert retention.stored_bytes(session, "proj-other") == 2**40


def tables_of_jobs() -> list[Any]:
    """Every table whose rows belong to a job, found by their foreign keys."""
    return [
        column
        for table in Base.metadata.tables.values()
        for column in table.columns
        for key in column.foreign_keys
        if key.column.table is Job.__table__
    ]


def test_a_deleted_job_leaves_no_row_in_any_table(database: Database) -> None:
    file_id = add_file(database)
    with database.write() as session:
        pipeline = pipelines.create_pipeline(session, PROJECT, name=None)
    job_id = submit(database, file_id, pipeline=pipeline.id)
    held = claim(database, job_id)
    add_checkpoint(database, held)
    succeed(database, held)
    dependent = submit(database, file_id, pipeline=pipeline.id, needs={"teacher": job_id})
    with pytest.raises(Conflict, match=dependent), database.write() as session:
        deletion.delete_job(session, PROJECT, job_id)
    with pytest.raises(Conflict, match="queued"), database.write() as session:
        deletion.delete_job(session, PROJECT, dependent)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, dependent)
        deletion.delete_job(session, PROJECT, job_id)
        assert session.get(Pipeline, pipeline.id) is not None
    with database.read() as session:
        for column in tables_of_jobs():
            assert session.scalar(select(column).where(column == job_id)) is None, column
        references = {"teacher": {"job": job_id}}
        with pytest.raises(NotFound, match="was deleted"):
            inputs.resolve_references(session, project_id=PROJECT, job_id=dependent, files={}, models=references)
    with database.write() as session:
        deletion.delete_job(session, PROJECT, dependent)
        assert session.get(Pipeline, pipeline.id) is None
        with pytest.raises(NotFound):
            deletion.delete_job(session, PROJECT, dependent)


def test_a_checkpoint_is_deleted_once_its_job_has_ended(database: Database) -> None:
    job_id = submit(database, add_file(database))
    held = claim(database, job_id)
    key = add_checkpoint(database, held)
    with database.read() as session:
        (row,) = checkpointing.list_checkpoints(session, job_id)
    with pytest.raises(Conflict, match="running"), database.write() as session:
        deletion.delete_checkpoint(session, PROJECT, job_id, row.id)
    succeed(database, held)
    with database.write() as session:
        assert deletion.delete_checkpoint(session, PROJECT, job_id, row.id) == key
        with pytest.raises(NotFound):
            deletion.delete_checkpoint(session, PROJECT, job_id, row.id)


DAY = 86400.0


def age(database: Database, job_id: str, days: float) -> None:
    with database.write() as session:
        session.get_one(Job, job_id).finished_at = int(time.time() - days * DAY)


def test_checkpoints_artifacts_and_events_go_by_the_age_of_a_jobs_end(database: Database) -> None:
    file_id = add_file(database)
    old, young, running = submit(database, file_id), submit(database, file_id), submit(database, file_id)
    held = {job_id: claim(database, job_id) for job_id in (old, young, running)}
    keys = {job_id: add_checkpoint(database, one) for job_id, one in held.items()}
    for one in held.values():
        events = [NewEvent("metrics", data={"step": 1}), NewEvent("sample", data={"path": "a.png"}), NewEvent("log")]
        rows = [as_row(one.job_id, one.fence, seq, event, now=0.0) for seq, event in enumerate(events, 2)]
        with database.write() as session:
            insert_events(session, rows)
    for job_id in (old, young):
        succeed(database, held[job_id])
    age(database, old, 10)
    age(database, young, 3)
    with database.write() as session:
        for table in (Checkpoint, Artifact, Event):
            assert retention.jobs_to_thin(session, table, days=5) == [old]
        for job_id in (young, running):
            assert retention.drop_checkpoints(session, job_id, days=5) == []
            assert retention.drop_artifacts(session, job_id, days=5) == []
            assert retention.drop_events(session, job_id, days=5) == (0, [])
        assert retention.drop_checkpoints(session, old, days=5) == [(keys[old], 1)]
        assert retention.drop_artifacts(session, old, days=5) == [(f"jobs/{old}/1/artifacts/m", 1)]
        assert retention.drop_events(session, old, days=5) == (3, [(1, {"path": "a.png"})])
        assert retention.drop_events(session, old, days=5) == (0, [])
        for table in (Checkpoint, Artifact, Event):
            assert retention.jobs_to_thin(session, table, days=5) == []
    with database.read() as session:
        statuses = [event.data["status"] for event in list_events(session, old)]
        assert statuses == ["queued", "running", "succeeded"]
        assert model_of_job(session, old) is None
        assert model_of_job(session, young) is not None
        assert len(list_events(session, young)) == 6


@pytest.mark.parametrize("how", ["by its job", "by its id"])
def test_an_old_model_stays_while_an_unfinished_job_starts_from_it(database: Database, how: str) -> None:
    file_id = add_file(database)
    maker = submit(database, file_id)
    model = succeed(database, claim(database, maker))
    age(database, maker, 10)
    by_id = how == "by its id"
    dependent = submit(database, file_id, **({"name": model} if by_id else {"needs": {"teacher": maker}}))
    with database.write() as session:
        assert retention.jobs_to_thin(session, Artifact, days=5) == [maker]
        assert retention.drop_artifacts(session, maker, days=5) == []
        asking.pause_job(session, PROJECT, dependent)
        assert retention.drop_artifacts(session, maker, days=5) == []
        asking.cancel_job(session, PROJECT, dependent)
        assert len(retention.drop_artifacts(session, maker, days=5)) == 1


def test_many_events_go_in_pieces(database: Database) -> None:
    job_id = submit(database, add_file(database))
    held = claim(database, job_id)
    rows = [as_row(job_id, held.fence, seq, NewEvent("log"), now=0.0) for seq in range(2, 11)]
    with database.write() as session:
        insert_events(session, rows)
    succeed(database, held)
    with database.write() as session:
        counts = [retention.drop_events(session, job_id, days=-1, at_once=4)[0] for _ in range(4)]
    assert counts == [4, 4, 1, 0]


def test_expired_files_go_but_not_under_an_unfinished_job(database: Database) -> None:
    gone, needed, lasting = add_file(database), add_file(database), add_file(database)
    with database.write() as session:
        for file_id in (gone, needed):
            session.get_one(File, file_id).expires_at = 1
    job_id = submit(database, needed)
    with database.write() as session:
        assert retention.expired_files(session) == [gone]
        assert retention.delete_expired_file(session, needed) is None
        assert retention.delete_expired_file(session, lasting) is None
        assert retention.delete_expired_file(session, gone) == "0" * 64
        assert retention.delete_expired_file(session, gone) is None
        asking.cancel_job(session, PROJECT, job_id)
        assert retention.expired_files(session) == [needed]


def test_old_submissions_and_uploads_are_forgotten(database: Database) -> None:
    now = time.time()
    with database.write() as session:
        for age in (0, 100):
            told = {"project_id": PROJECT, "body_sha256": "0", "resource_id": f"job-{age}", "created_at": now - age}
            session.add(IdempotencyKey(key=f"key-{age}", **{**told, "created_at": int(now - age)}))
            session.add(Submission(key_id="key", retry_count=0, **told))
    ended = add_upload(database, UploadStatus.CANCELLED)
    pending = add_upload(database, UploadStatus.PENDING, 1)
    with database.write() as session:
        assert retention.drop_submissions(session, seconds=50) == 2
        assert retention.drop_submissions(session, seconds=50) == 0
        assert find_submission(session, PROJECT, "key-0", "0") == "job-0"
        assert find_submission(session, PROJECT, "key-100", "0") is None
        assert retention.drop_uploads(session, seconds=0) == 0
        for upload_id in (ended, pending):
            session.get_one(Upload, upload_id).expires_at = 1
        assert [size for _, size in uploads.expire_uploads(session)] == [1]
        assert session.get_one(Upload, pending).status is UploadStatus.EXPIRED
        assert retention.drop_uploads(session, seconds=0) == 2
