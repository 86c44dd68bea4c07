"""What a project has stored, and what of it may go, on SQLite and PostgreSQL."""

from __future__ import annotations

import time

from core.jobs import files, leases, retention, store
from core.jobs.database import Database
from core.jobs.models import Project, Upload, UploadPart, new_id
from core.jobs.status import UploadStatus
from core.spec import MethodSpec

PROJECT = "proj-test"


def add_file(database: Database, *, size: int = 1, project_id: str = PROJECT) -> str:
    told = {"filename": "a", "purpose": "dataset", "sha256": "0" * 64, "profile": {"kind": "table"}}
    with database.write() as session:
        return files.add_file(session, project_id, size=size, **told).id


def submit(database: Database, dataset: str, *, needs: dict[str, str] | None = None, **spec) -> str:
    with database.write() as session:
        made = MethodSpec(method="pca", dataset=dataset, **spec)
        return store.create_job(session, project_id=PROJECT, spec=made, max_attempts=3, needs=needs).id


def claim(database: Database, job_id: str) -> leases.Claim:
    with database.write() as session:
        found = leases.claim_job(session, owner="w", devices=("auto",), lease_seconds=60)
    assert found.job_id == job_id
    return found


def add_checkpoint(database: Database, held: leases.Claim, step: int = 1, *, size: int = 1) -> str:
    key = f"jobs/{held.job_id}/{held.fence}/checkpoints/{step}"
    with database.write() as session:
        leases.add_checkpoint(session, held, key=key, step=step, size=size, sha256="0" * 64, metrics={})
    return key


def succeed(database: Database, held: leases.Claim, *, size: int = 1) -> str:
    key = f"jobs/{held.job_id}/{held.fence}/artifacts/m"
    file = leases.Published("m", key, size, "0" * 64, "application/octet-stream")
    with database.write() as session:
        return leases.succeed_job(session, held, files=[file], metrics={}, lineage={})


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
