"""Pipelines: several jobs in one transaction, each waiting for the weights that it needs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from core.errors import TrainingFailed
from core.jobs import attempts
from tests.api.service import Service, new_project, submit, upload_example, work


@pytest.fixture
def images(http: httpx.Client) -> str:
    return str(upload_example(http, "distillation")["id"])


def classifier(images: str, **changes: Any) -> dict[str, Any]:
    return {"method": "classification", "dataset": images, "architecture": {"architecture": "mlp"}, **changes}


def student(images: str, teacher: str, **changes: Any) -> dict[str, Any]:
    network = {"architecture": "mlp"}
    return {"method": "distillation", "dataset": images, "student": network, "teacher": {"job": teacher}, **changes}


def test_jobs_are_made_in_any_order_and_wait_for_each_other(http: httpx.Client, service: Service, images: str) -> None:
    jobs = {"student": student(images, "teacher"), "teacher": classifier(images)}
    answer = http.post("/v1/pipelines", json={"name": "both", "jobs": jobs})
    assert answer.status_code == 202, answer.text
    pipeline = answer.json()
    teacher, pupil = pipeline["jobs"]["teacher"], pipeline["jobs"]["student"]
    assert (pipeline["status"], teacher["status"], pupil["status"]) == ("queued", "queued", "queued")
    assert pupil["spec"]["teacher"] == {"job": teacher["id"]}
    assert pupil["waiting"]["needs"] == [{"field": "teacher", "job": teacher["id"], "status": "queued"}]
    assert pupil["waiting"]["position"] is None
    assert (pupil["pipeline"], pupil["pipeline_step"]) == (pipeline["id"], "student")
    model = work(service, teacher["id"]).succeed()
    now = http.get(f"/v1/pipelines/{pipeline['id']}").json()
    assert now["status"] == "running"
    assert now["jobs"]["student"]["waiting"]["needs"] == []
    refused = http.delete(f"/v1/models/{model}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "in_use")
    work(service, pupil["id"]).succeed()
    assert http.get(f"/v1/pipelines/{pipeline['id']}").json()["status"] == "succeeded"
    assert [one["id"] for one in http.get("/v1/pipelines").json()["data"]] == [pipeline["id"]]


def test_a_failure_fails_what_waits_for_it(http: httpx.Client, service: Service, images: str) -> None:
    jobs = {"teacher": classifier(images), "student": student(images, "teacher")}
    pipeline = http.post("/v1/pipelines", json={"jobs": jobs}).json()
    worker = work(service, pipeline["jobs"]["teacher"]["id"])
    with service.database.write() as session:
        attempts.fail_job(session, worker.claim, TrainingFailed("diverged"), is_retryable=False)
    now = http.get(f"/v1/pipelines/{pipeline['id']}").json()
    assert now["status"] == "failed"
    assert now["jobs"]["student"]["error"]["code"] == "dependency_failed"


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"student": {"teacher": {"job": "student"}}}, 422, "jobs", "circle"),
        ({"student": {"teacher": {"job": "nobody"}}}, 404, "jobs.student.teacher", "nobody"),
        ({"student": {"temprature": 2}}, 422, "jobs.student.temprature", "mean temperature"),
        ({"teacher": {"dataset": "file-none"}}, 404, "jobs.teacher.dataset", "file-none"),
        ({"teacher": {"method": "odd"}}, 422, "jobs.teacher.method", "odd"),
    ],
)
def test_a_mistake_makes_no_job_at_all(
    http: httpx.Client, images: str, change: dict, status: int, param: str, words: str
) -> None:
    jobs = {"teacher": classifier(images), "student": student(images, "teacher")}
    for name, fields in change.items():
        jobs[name] = {**jobs[name], **fields}
    answer = http.post("/v1/pipelines", json={"jobs": jobs})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]
    assert http.get("/v1/jobs").json()["data"] == []
    assert http.get("/v1/pipelines").json()["data"] == []


def test_jobs_that_need_each_other_in_a_circle_are_refused(http: httpx.Client, images: str) -> None:
    jobs = {name: student(images, other) for name, other in (("a", "b"), ("b", "c"), ("c", "a"))}
    answer = http.post("/v1/pipelines", json={"jobs": jobs | {"d": classifier(images)}})
    assert answer.status_code == 422
    assert "circle: a, b, c" in answer.json()["error"]["message"]
    assert http.get("/v1/jobs").json()["data"] == []


def test_a_pipeline_is_made_once_for_an_idempotency_key(http: httpx.Client, images: str) -> None:
    body = {"jobs": {"only": classifier(images)}}
    first, second = (http.post("/v1/pipelines", json=body, headers={"Idempotency-Key": "k"}).json() for _ in range(2))
    assert first["id"] == second["id"]
    assert len(http.get("/v1/jobs").json()["data"]) == 1


def test_a_job_may_start_from_another_project_jobs_only_if_it_is_its_own(
    http: httpx.Client, service: Service, images: str
) -> None:
    teacher = http.post("/v1/jobs", json=classifier(images)).json()
    with service.client(new_project(service)) as other:
        theirs = upload_example(other, "distillation")["id"]
        for reference in ({"job": teacher["id"]}, work(service, teacher["id"]).succeed()):
            answer = other.post("/v1/jobs", json={**student(theirs, "x"), "teacher": reference})
            assert (answer.status_code, answer.json()["error"]["param"]) == (404, "teacher")
    cancelled = submit(http, upload_example(http, "pca")["id"])
    http.post(f"/v1/jobs/{cancelled['id']}/cancel")
    answer = http.post("/v1/jobs", json=student(images, cancelled["id"]))
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "teacher")
