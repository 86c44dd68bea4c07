"""Space made free by hand: nothing of a deleted job is left, and nothing that is needed is deleted."""

from __future__ import annotations

from pathlib import Path

import httpx

from core.jobs.events import NewEvent
from tests.api.service import Service, submit, upload, work
from tests.api.test_samples import show


def stored_of(service: Service, job_id: str) -> list[Path]:
    return [path for path in (service.folder / "storage" / "jobs" / job_id).rglob("*") if path.is_file()]


def finished(http: httpx.Client, service: Service, job_id: str) -> str:
    """The id of its model."""
    worker = work(service, job_id)
    worker.checkpoint(1, b"state")
    show(worker, "words", 1, b"one")
    worker.emit(NewEvent("log", "a line", data={"attempt": 1}))
    return worker.succeed()


def test_a_deleted_job_is_gone_with_all_it_left(http: httpx.Client, service: Service) -> None:
    file = upload(http)["id"]
    job_id = submit(http, file)["id"]
    early = http.delete(f"/v1/jobs/{job_id}")
    assert (early.status_code, early.headers["x-should-retry"]) == (409, "false")
    assert "queued" in early.json()["error"]["message"]
    model = finished(http, service, job_id)
    dependent = submit(http, file)["id"]
    assert len(stored_of(service, job_id)) == 3
    assert http.delete(f"/v1/jobs/{job_id}").json() == {"id": job_id, "object": "job", "deleted": True}
    assert stored_of(service, job_id) == []
    assert not (service.folder / "storage" / "jobs" / job_id).exists()
    for path in (f"jobs/{job_id}", f"jobs/{job_id}/events", f"jobs/{job_id}/checkpoints", f"models/{model}"):
        assert http.get(f"/v1/{path}").status_code == 404
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 404
    assert [job["id"] for job in http.get("/v1/jobs").json()["data"]] == [dependent]
    assert http.get(f"/v1/files/{file}").status_code == 200


def test_a_pipeline_keeps_its_other_jobs(http: httpx.Client, service: Service) -> None:
    file = upload(http)["id"]
    jobs = {"a": {"method": "pca", "dataset": file}, "b": {"method": "pca", "dataset": file}}
    pipeline = http.post("/v1/pipelines", json={"jobs": jobs}).json()
    first, second = (pipeline["jobs"][name]["id"] for name in "ab")
    for job_id in (first, second):
        http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    http.delete(f"/v1/jobs/{first}").raise_for_status()
    assert list(http.get(f"/v1/pipelines/{pipeline['id']}").json()["jobs"]) == ["b"]
    http.delete(f"/v1/jobs/{second}").raise_for_status()
    assert http.get(f"/v1/pipelines/{pipeline['id']}").status_code == 404


def test_a_checkpoint_is_deleted_once_its_job_has_ended(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    worker.checkpoint(1, b"first")
    worker.checkpoint(2, b"second")
    newest, oldest = (row["id"] for row in http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"])
    assert http.delete(f"/v1/jobs/{job_id}/checkpoints/{oldest}").status_code == 409
    worker.succeed()
    assert http.delete(f"/v1/jobs/{job_id}/checkpoints/{oldest}").json()["deleted"]
    assert http.delete(f"/v1/jobs/{job_id}/checkpoints/{oldest}").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}/checkpoints/{newest}").content == b"second"
    assert {path.read_bytes() for path in stored_of(service, job_id)} == {b"second", b"weights"}
