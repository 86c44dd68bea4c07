"""What is done to jobs of one project, in a line each."""

from __future__ import annotations

from core.jobs import claiming, leases, publishing, store
from core.jobs.artifacts import Published
from core.jobs.database import Database
from core.jobs.events import list_events
from core.jobs.models.jobs import Job
from core.spec import MethodSpec

PROJECT = "proj-test"


def submit(database: Database, *, needs: dict[str, str] | None = None, max_attempts: int = 3, **spec) -> str:
    with database.write() as session:
        made = MethodSpec(method="pca", dataset="file-1", **spec)
        return store.create_job(session, project_id=PROJECT, spec=made, max_attempts=max_attempts, needs=needs).id


def claim(database: Database, *, owner: str = "worker-1", seconds: float = 60.0, devices=("auto", "cpu")):
    with database.write() as session:
        return claiming.claim_job(session, owner=owner, devices=devices, lease_seconds=seconds)


def get(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return store.get_job(session, PROJECT, job_id)


def events_of(database: Database, job_id: str) -> list[tuple[str, str]]:
    with database.read() as session:
        return [(f"{event.fence}-{event.seq}", event.data.get("status", "")) for event in list_events(session, job_id)]


def succeed(database: Database, held: leases.Claim) -> str:
    file = Published("model.safetensors", f"{held.job_id}/m", 3, "0" * 64, "application/octet-stream")
    with database.write() as session:
        return publishing.succeed_job(session, held, files=[file], metrics={"loss": 0.5}, lineage={})
