"""Quotas over HTTP: seen, changed, and refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from core.jobs.models.jobs import Attempt
from tests.api.service import ADMIN_KEY, Service, submit, table, upload, work
from tests.api.test_uploads import complete, send


@pytest.fixture
def admin(service: Service) -> Iterator[httpx.Client]:
    """A client of whoever runs the server."""
    with service.client(ADMIN_KEY) as client:
        yield client


def project_of(http: httpx.Client) -> dict[str, Any]:
    (project,) = http.get("/v1/projects").json()["data"]
    return project


def limit(admin: httpx.Client, http: httpx.Client, **quotas: int | None) -> dict[str, Any]:
    answer = admin.patch(f"/v1/projects/{project_of(http)['id']}", json=quotas)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def test_only_whoever_runs_the_server_sees_all_projects_and_sets_quotas(
    http: httpx.Client, admin: httpx.Client
) -> None:
    mine = project_of(http)
    assert mine["quotas"] == mine["limits"] == dict.fromkeys(mine["quotas"])
    assert mine["id"] in [one["id"] for one in admin.get("/v1/projects", params={"limit": 100}).json()["data"]]
    assert http.patch(f"/v1/projects/{mine['id']}", json={"max_running_jobs": 9}).status_code == 403
    changed = limit(admin, http, max_running_jobs=2, max_gpu_seconds=0)
    assert changed["quotas"] == {**mine["quotas"], "max_running_jobs": 2, "max_gpu_seconds": 0}
    assert changed["limits"] == {**mine["limits"], "max_running_jobs": 2}
    assert limit(admin, http, max_running_jobs=None)["quotas"]["max_gpu_seconds"] == 0
    assert project_of(http)["limits"]["max_running_jobs"] is None
    for wrong in ({"max_running_jobs": -1}, {"max_jobs": 1}, {"max_running_jobs": 2**63}):
        assert admin.patch(f"/v1/projects/{mine['id']}", json=wrong).status_code == 422


def test_unfinished_jobs_are_refused_beyond_the_quota_until_some_have_ended(
    http: httpx.Client, admin: httpx.Client
) -> None:
    limit(admin, http, max_unfinished_jobs=2)
    spec = {"method": "pca", "n_components": 2, "dataset": upload(http)["id"]}
    pipeline = {"jobs": {"a": spec, "b": spec, "c": spec}}
    refused = http.post("/v1/pipelines", json=pipeline)
    assert refusal(refused) == (429, "quota_exceeded", "max_unfinished_jobs")
    first, _ = (submit(http, spec["dataset"])["id"] for _ in range(2))
    refused = http.post("/v1/jobs", json=spec)
    assert refusal(refused) == (429, "quota_exceeded", "max_unfinished_jobs")
    assert int(refused.headers["retry-after"]) > 0
    assert http.post(f"/v1/jobs/{first}/cancel").status_code == 200
    submit(http, spec["dataset"])
    assert refusal(http.post(f"/v1/jobs/{first}/retry")) == (429, "quota_exceeded", "max_unfinished_jobs")
    assert project_of(http)["usage"]["unfinished_jobs"] == 2


def test_a_submission_is_refused_where_storage_or_gpu_seconds_are_used_up(
    http: httpx.Client, admin: httpx.Client, service: Service
) -> None:
    dataset = upload(http)
    spec = {"method": "pca", "n_components": 2, "dataset": dataset["id"]}
    limit(admin, http, max_stored_bytes=dataset["bytes"])
    assert refusal(http.post("/v1/jobs", json=spec)) == (403, "quota_exceeded", "max_stored_bytes")
    limit(admin, http, max_stored_bytes=None, max_gpu_seconds=1)
    worker = work(service, submit(http, dataset["id"])["id"])
    service_started_earlier(service, worker.claim.job_id)
    assert refusal(http.post("/v1/jobs", json=spec)) == (403, "quota_exceeded", "max_gpu_seconds")
    assert http.post("/v1/jobs", json={**spec, "device": "cpu"}).status_code == 202
    worker.succeed()
    assert project_of(http)["usage"]["gpu_seconds"] >= 100


def service_started_earlier(service: Service, job_id: str) -> None:

    with service.database.write() as session:
        earlier = Attempt.started_at - 100
        session.execute(update(Attempt).where(Attempt.job_id == job_id).values(started_at=earlier))


def test_a_project_that_runs_what_it_may_says_so_to_the_job_that_waits(
    http: httpx.Client, admin: httpx.Client, service: Service
) -> None:
    limit(admin, http, max_running_jobs=1)
    dataset = upload(http)["id"]
    first, second = (submit(http, dataset)["id"] for _ in range(2))
    worker = work(service, first)
    waiting = http.get(f"/v1/jobs/{second}").json()["waiting"]
    assert (waiting["what"], waiting["limit"], waiting["position"]) == ("max_running_jobs", 1, None)
    assert waiting["reason"] == "the project runs as many jobs as it may at once: 1"
    worker.succeed()
    assert http.get(f"/v1/jobs/{second}").json()["waiting"]["what"] != "max_running_jobs"


def test_files_and_parts_are_refused_beyond_the_quota_of_stored_bytes(
    http: httpx.Client, admin: httpx.Client, service: Service
) -> None:
    content = table(200)
    limit(admin, http, max_stored_bytes=2 * len(content))
    full = (403, "quota_exceeded", "max_stored_bytes")
    told = {"filename": "t.csv", "bytes": len(content)}
    upload_id = http.post("/v1/uploads", json=told).json()["id"]
    assert refusal(http.post("/v1/uploads", json={**told, "bytes": 2 * len(content) + 1})) == full
    first, last = send(http, upload_id, content[:100], content[100:])
    assert project_of(http)["usage"]["stored_bytes"] == len(content)
    twice = upload(http, content)["id"]
    assert project_of(http)["usage"]["stored_bytes"] == 2 * len(content)
    before = set((service.folder / "storage" / "parts").iterdir())
    assert refusal(http.post(f"/v1/uploads/{upload_id}/parts", files={"data": b"x"})) == full
    assert set((service.folder / "storage" / "parts").iterdir()) == before
    assert refusal(http.post("/v1/files", files={"file": ("t.csv", table(300))})) == full
    assert complete(http, upload_id, [first, last]).status_code == 200  # takes the place of its parts
    assert project_of(http)["usage"]["stored_bytes"] == 2 * len(content)
    http.delete(f"/v1/files/{twice}").raise_for_status()
    larger = http.post("/v1/files", files={"file": ("t.csv", table(2000))})
    assert refusal(larger) == full
    assert len(http.get("/v1/files").json()["data"]) == 1
