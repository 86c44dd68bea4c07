"""Checkpoints are models: listed with what they reached, used as bases, permitted to others, and kept while in use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.api.service import ADMIN_KEY, Service, Worker, new_project, submit, upload, work
from tests.tiny_llama import conversations, llama_zip


@dataclass
class Tuned:
    """A fine-tuning job that runs, and what it started from."""

    job_id: str
    base: str
    dataset: str
    worker: Worker


@pytest.fixture
def tuned(http: httpx.Client, service: Service) -> Tuned:
    return start_tuning(http, service)


def start_tuning(http: httpx.Client, service: Service) -> Tuned:
    base = upload(http, llama_zip(), name="tiny.zip", purpose="base-model")["id"]
    dataset = upload(http, conversations(), name="chat.jsonl")["id"]
    job_id = fine_tune(http, base, dataset)["id"]
    return Tuned(job_id, base, dataset, work(service, job_id))


@pytest.fixture
def other(service: Service) -> Iterator[httpx.Client]:
    """An admin of another project."""
    with service.client(new_project(service)) as client:
        yield client


def fine_tune(http: httpx.Client, base: str, dataset: str, **settings: Any) -> dict[str, Any]:
    spec = {"method": "fine_tuning", "task": "chat", "base": base, "dataset": dataset, "strategy": "lora", **settings}
    answer = http.post("/v1/jobs", json=spec)
    assert answer.status_code == 202, answer.text
    return answer.json()


def project_of(http: httpx.Client) -> dict[str, Any]:
    (project,) = http.get("/v1/projects").json()["data"]
    return project


def permissions_of(http: httpx.Client, tuned: Tuned) -> str:
    """Where the permissions of its newest checkpoint are."""
    name = listed(http, tuned.job_id)["data"][0]["fine_tuned_model_checkpoint"]
    return f"/v1/fine_tuning/checkpoints/{name}/permissions"


def listed(http: httpx.Client, job_id: str, **query: Any) -> dict[str, Any]:
    return http.get(f"/v1/fine_tuning/jobs/{job_id}/checkpoints", params=query).raise_for_status().json()


def test_those_of_epochs_are_listed_with_name_and_metrics(http: httpx.Client, tuned: Tuned) -> None:
    tuned.worker.checkpoint(5, b"5")
    ids = [tuned.worker.checkpoint(step, b"e", is_epoch=True, loss=1.5, valid_loss=2.5) for step in (10, 20)]
    page = listed(http, tuned.job_id)
    assert [one["id"] for one in page["data"]] == ids[::-1]
    newest = page["data"][0]
    name = f"ft:.+:{project_of(http)['name']}::{tuned.job_id.removeprefix('job-')}:ckpt-step-20"
    assert re.fullmatch(name, newest["fine_tuned_model_checkpoint"])
    assert (newest["step_number"], newest["fine_tuning_job_id"]) == (20, tuned.job_id)
    assert {key: value for key, value in newest["metrics"].items() if value is not None} == {
        "step": 20, "train_loss": 1.5, "valid_loss": 2.5, "full_valid_loss": 2.5,
    }  # fmt: skip
    first = listed(http, tuned.job_id, limit=1)
    assert (len(first["data"]), first["has_more"]) == (1, True)
    assert [one["id"] for one in listed(http, tuned.job_id, after=first["last_id"])["data"]] == ids[:1]
    assert http.get(f"/v1/fine_tuning/jobs/{tuned.job_id}/checkpoints?after=ckpt-1").status_code == 404
    other = submit(http, upload(http)["id"])["id"]
    assert http.get(f"/v1/fine_tuning/jobs/{other}/checkpoints").status_code == 404
    model = http.get(f"/v1/models/{newest['fine_tuned_model_checkpoint']}").raise_for_status().json()
    assert (model["id"], model["job"]) == (newest["fine_tuned_model_checkpoint"], tuned.job_id)


def test_what_a_job_starts_from_stays_with_all_that_it_stands_on(http: httpx.Client, tuned: Tuned) -> None:
    first = tuned.worker.checkpoint(10, b"10", is_epoch=True)
    job = fine_tune(http, first, tuned.dataset)
    assert job["lineage"]["base"] == {**dict.fromkeys(job["lineage"]["base"]), "checkpoint": first, "step": 10,
                                      "job": tuned.job_id}  # fmt: skip
    for step in (20, 30, 40, 50):
        tuned.worker.checkpoint(step, b"e", is_epoch=True)
    assert [one["step_number"] for one in listed(http, tuned.job_id)["data"]] == [50, 40, 30, 10]
    tuned.worker.succeed()
    here = f"/v1/jobs/{tuned.job_id}"
    for path in (f"{here}/checkpoints/{first}", here, f"/v1/files/{tuned.base}"):
        refused = http.delete(path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "in_use"), path
        assert job["id"] in refused.json()["error"]["message"]
    assert http.get(f"{here}/checkpoints/{first}").content == b"10"
    http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    for path in (f"{here}/checkpoints/{first}", here, f"/v1/files/{tuned.base}"):
        assert http.delete(path).status_code == 200, path


def test_what_is_no_model_is_no_base(http: httpx.Client, tuned: Tuned) -> None:
    between = tuned.worker.checkpoint(5, b"5")
    tuned.worker.checkpoint(10, b"10", is_epoch=True)
    spec = {"method": "fine_tuning", "task": "chat", "dataset": tuned.dataset}
    refused = http.post("/v1/jobs", json={**spec, "base": between})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "base")
    assert "going on with its job" in refused.json()["error"]["message"]
    assert http.post("/v1/jobs", json={**spec, "base": "ckpt-unknown"}).status_code == 404
    tuned.worker.succeed()
    epoch = listed(http, tuned.job_id)["data"][0]["id"]
    http.delete(f"/v1/files/{tuned.base}").raise_for_status()
    refused = http.post("/v1/jobs", json={**spec, "base": epoch})
    assert refused.status_code == 404
    assert "on a base that is not there any more" in refused.json()["error"]["message"]


def test_a_permitted_project_uses_the_checkpoint_and_sees_nothing_else(
    http: httpx.Client, other: httpx.Client, tuned: Tuned
) -> None:
    checkpoint = tuned.worker.checkpoint(10, b"10", is_epoch=True)
    name = listed(http, tuned.job_id)["data"][0]["fine_tuned_model_checkpoint"]
    theirs = upload(other, conversations(), name="chat.jsonl")["id"]
    spec = {"method": "fine_tuning", "task": "chat", "dataset": theirs, "base": checkpoint}
    assert other.get(f"/v1/models/{name}").status_code == other.post("/v1/jobs", json=spec).status_code == 404
    here = f"/v1/fine_tuning/checkpoints/{name}/permissions"
    granted = http.post(here, json={"project_ids": [project_of(other)["name"]]}).raise_for_status().json()["data"]
    assert [one["project_id"] for one in granted] == [project_of(other)["id"]]
    assert http.post(here, json={"project_ids": [project_of(other)["id"]]}).json()["data"] == granted
    assert other.get(f"/v1/models/{name}").json()["id"] == name
    compared = other.post("/v1/comparisons", json={"models": [name], "prompt": "a"})
    assert (compared.status_code, compared.json()["error"]["param"]) == (400, "models")
    job = other.post("/v1/jobs", json=spec)
    assert job.status_code == 202, job.text
    assert [job["id"] for job in other.get("/v1/jobs").json()["data"]] == [job.json()["id"]]
    again = other.post("/v1/fine_tuning/jobs", json={"model": name, "training_file": theirs})
    assert (again.status_code, again.json().get("model")) == (200, name), again.text
    other.post(f"/v1/fine_tuning/jobs/{again.json()['id']}/cancel").raise_for_status()
    for path in (f"jobs/{tuned.job_id}", f"jobs/{tuned.job_id}/checkpoints/{checkpoint}", f"models/{tuned.base}"):
        assert other.get(f"/v1/{path}").status_code == 404
    assert other.get(here).status_code == other.delete(f"{here}/{granted[0]['id']}").status_code == 404
    tuned.worker.succeed()
    assert http.delete(f"/v1/jobs/{tuned.job_id}").json()["error"]["code"] == "in_use"
    other.post(f"/v1/jobs/{job.json()['id']}/cancel").raise_for_status()
    assert http.delete(f"{here}/{granted[0]['id']}").json()["object"] == "checkpoint.permission"
    assert other.get(f"/v1/models/{name}").status_code == other.post("/v1/jobs", json=spec).status_code == 404


def test_permissions_are_listed_in_order_by_project_and_go_with_the_checkpoint(
    http: httpx.Client, service: Service, tuned: Tuned
) -> None:
    checkpoint = tuned.worker.checkpoint(10, b"10", is_epoch=True)
    here = permissions_of(http, tuned)
    projects = []
    for _ in range(3):
        with service.client(new_project(service)) as one:
            projects.append(project_of(one)["id"])
    made = [one["id"] for one in http.post(here, json={"project_ids": projects}).json()["data"]]
    pages = [http.get(here, params={"limit": 2, "order": "ascending"}).json()]
    pages.append(http.get(here, params={"after": pages[0]["last_id"], "order": "ascending"}).json())
    assert [one["id"] for page in pages for one in page["data"]] == made
    assert [page["has_more"] for page in pages] == [True, False]
    assert [one["id"] for one in http.get(here).json()["data"]] == made[::-1]
    assert [one["id"] for one in http.get(here, params={"project_id": projects[1]}).json()["data"]] == [made[1]]
    for wrong, status in (([], 422), (["nobody's"], 404), (["\0"], 422), ([project_of(http)["id"]], 400)):
        assert http.post(here, json={"project_ids": wrong}).status_code == status
    tuned.worker.succeed()
    http.delete(f"/v1/jobs/{tuned.job_id}/checkpoints/{checkpoint}").raise_for_status()
    assert http.get(here).status_code == 404


def test_only_admins_permit(service: Service, http: httpx.Client, tuned: Tuned) -> None:
    tuned.worker.checkpoint(10, b"10", is_epoch=True)
    here = permissions_of(http, tuned)
    key = http.post("/v1/api_keys", json={"name": "writer", "role": "write"}).json()["key"]
    with service.client(key) as writer:
        assert listed(writer, tuned.job_id)["data"]
        for method, path in (("GET", here), ("POST", here), ("DELETE", f"{here}/perm-1")):
            assert writer.request(method, path).status_code == 403
    with service.client(ADMIN_KEY) as default:
        assert default.get(here).status_code == 404
