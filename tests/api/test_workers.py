"""Workers over HTTP: listed with the jobs they hold, drained; and what queued jobs say of them."""

from __future__ import annotations

import httpx
import pytest

from core.errors import TrainingFailed
from core.jobs import attempts, workers
from tests.api.service import ADMIN_KEY, Service, start_worker, submit, upload, wait_for, work


@pytest.fixture(autouse=True)
def no_workers(service: Service) -> None:
    with service.database.write() as session:
        for row in workers.living_workers(session, beat_seconds=60):
            workers.leave(session, row.id)


def waiting_of(http: httpx.Client, job_id: str) -> tuple[str, str]:
    waiting = http.get(f"/v1/jobs/{job_id}").json()["waiting"]
    return waiting["what"], waiting["reason"]


def test_workers_are_listed_with_the_jobs_they_hold(http: httpx.Client, service: Service) -> None:
    start_worker(service, has_gpu=True)
    start_worker(service, "w-2")
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    shown = {one["id"]: one for one in http.get("/v1/workers", params={"order": "asc"}).json()["data"]}
    assert list(shown) == ["w-1", "w-2"]
    assert (shown["w-1"]["job"], shown["w-1"]["has_gpu"], shown["w-1"]["is_busy"]) == (job_id, True, True)
    assert (shown["w-2"]["job"], shown["w-2"]["is_busy"]) == (None, False)
    page = http.get("/v1/workers", params={"limit": 1}).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (["w-2"], True)
    assert [one["id"] for one in http.get("/v1/workers?after=w-2").json()["data"]] == ["w-1"]
    assert http.get("/v1/workers?after=w-3").status_code == 404
    with service.client(ADMIN_KEY) as admin:
        assert {one["job"] for one in admin.get("/v1/workers").json()["data"]} == {job_id, None}
        other = admin.post("/v1/api_keys", json={"name": "a", "role": "read", "project": "elsewhere"}).json()["key"]
    with service.client(other) as stranger:
        hidden = {one["id"]: one for one in stranger.get("/v1/workers").json()["data"]}
        assert (hidden["w-1"]["job"], hidden["w-1"]["is_busy"]) == (None, True)
    worker.succeed()


def test_a_worker_that_says_nothing_any_more_is_gone(http: httpx.Client, service: Service) -> None:
    start_worker(service)
    wait_for(lambda: http.get("/v1/workers").json()["data"] == [])
    with service.client(ADMIN_KEY) as admin:
        wait_for(lambda: admin.post("/v1/workers/w-1/drain").status_code == 404)


def test_draining_is_asked_and_taken_back(http: httpx.Client, service: Service) -> None:
    start_worker(service)
    with service.client(ADMIN_KEY) as admin:
        assert admin.post("/v1/workers/w-1/drain").json()["drain_requested"]
        with service.database.write() as session:
            assert workers.beat(session, "w-1", host="here", has_gpu=False, is_draining=False, is_asked=False)
        assert http.post("/v1/workers/w-1/resume").status_code == 403
        assert not admin.post("/v1/workers/w-1/resume").json()["drain_requested"]
        with service.database.write() as session:
            assert not workers.beat(session, "w-1", host="here", has_gpu=False, is_draining=True, is_asked=True)


def test_a_queued_job_says_which_worker_it_lacks(http: httpx.Client, service: Service) -> None:
    dataset = upload(http)["id"]
    job_id, on_gpu = submit(http, dataset)["id"], submit(http, dataset, device="cuda")["id"]
    assert waiting_of(http, job_id) == ("any_worker", "no worker runs")
    assert waiting_of(http, on_gpu) == ("any_worker", "no worker runs")
    start_worker(service)
    what, reason = waiting_of(http, job_id)
    assert what == "free_worker"
    assert reason.startswith("waits for a free worker; ")
    assert waiting_of(http, on_gpu) == ("gpu_worker", "no worker with a GPU runs")
    with service.client(ADMIN_KEY) as admin:
        admin.post("/v1/workers/w-1/drain")
    assert waiting_of(http, job_id) == ("undrained_worker", "every worker is drained and takes no new job")
    for one in (job_id, on_gpu):
        http.post(f"/v1/jobs/{one}/cancel")


def test_a_job_that_pauses_after_a_failure_says_until_when(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    with service.database.write() as session:
        attempts.fail_job(session, worker.claim, TrainingFailed("died"), is_retryable=True, retry_seconds=50)
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert job["waiting"]["what"] == "retry"
    assert 30 < job["waiting"]["until"] - job["attempts"][0]["ended_at"] <= 52
    assert "UTC" in job["waiting"]["reason"]
    http.post(f"/v1/jobs/{job_id}/cancel")
