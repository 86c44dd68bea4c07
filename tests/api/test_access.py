"""Who may do what: every route asks for a key, keeps to its project, and obeys the key's role."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import re
from typing import Any

import httpx
import pytest

import api.routes
from tests.api.service import ADMIN_KEY, Service, new_project, start_worker, submit, upload, work
from tests.api.test_checkpoints import listed, start_tuning
from tests.api.test_samples import show

OPEN = {"/healthz", "/readyz"}
EVERYONES = {"/v1/methods/{name}", "/v1/methods/{name}/example_dataset", "/v1/methods/{name}/example_files/{field}"}
PERMISSIONS = "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions"
BODIES = {("POST", PERMISSIONS): {"project_ids": ["default"]}}  # without which a call is refused before all else
PAGES = {"/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs"}


def filled(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)(:path)?\}", lambda found: ids[found[1]], path)


@pytest.fixture
def ids(http: httpx.Client, service: Service) -> dict[str, str]:
    """One of everything, in the project of `http`."""
    file = upload(http)["id"]
    job = submit(http, file)["id"]
    worker = work(service, job)
    worker.checkpoint(1, b"state")
    show(worker, "words", 1, b"one")
    model = worker.succeed()
    pipeline = http.post("/v1/pipelines", json={"jobs": {"a": {"method": "pca", "dataset": file}}}).json()["id"]
    tuned = start_tuning(http, service)
    tuned.worker.checkpoint(1, b"state", is_epoch=True)
    upload_id = http.post("/v1/uploads", json={"filename": "a", "bytes": 1}).json()["id"]
    return {
        "file_id": file,
        "upload_id": upload_id,
        "job_id": job,
        "model_id": model,
        "pipeline_id": pipeline,
        "checkpoint_id": http.get(f"/v1/jobs/{job}/checkpoints").json()["data"][0]["id"],
        "sample_id": http.get(f"/v1/jobs/{job}/samples").json()["data"][0]["id"],
        "path": "model.safetensors",
        "fine_tuned_model_checkpoint": listed(http, tuned.job_id)["data"][0]["fine_tuned_model_checkpoint"],
        "permission_id": "perm-1",
        "fetch_id": "fetch-1",
        "key_id": http.post("/v1/api_keys", json={"name": "extra", "role": "read"}).json()["id"],
        "name": "pca",
        "worker_id": start_worker(service),
        "project_id": http.get("/v1/projects").json()["data"][0]["id"],
        **webhook_ids(http),
    }


def webhook_ids(http: httpx.Client) -> dict[str, str]:
    """An endpoint that nobody listens at, and what it was to be told."""
    body = {"name": "ours", "url": "http://127.0.0.1:1/", "event_types": ["job.cancelled"]}
    endpoint = http.post("/v1/webhook_endpoints", json=body).json()["id"]
    job = submit(http, upload(http)["id"])["id"]
    http.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    (delivery,) = http.get(f"/v1/webhook_endpoints/{endpoint}/deliveries").json()["data"]
    return {"webhook_endpoint_id": endpoint, "delivery_id": delivery["id"]}


def test_no_route_is_hidden_from_these_tests(service: Service) -> None:
    """They take the routes from the schema: only pages, and HEAD where there is GET, may be without a place there."""
    seen = set(service.schema.operations)
    for module in pkgutil.iter_modules(api.routes.__path__):
        for route in importlib.import_module(f"api.routes.{module.name}").router.routes:
            for method in route.methods:
                path = re.sub(r":path}", "}", route.path)
                assert ("GET" if method == "HEAD" else method, path) in seen, (method, route.path)
    app = importlib.import_module("api.main").app
    assert {route.path for route in app.routes if hasattr(route, "path")} == PAGES


def test_every_call_but_the_health_checks_asks_for_a_key(service: Service, ids: dict[str, str]) -> None:
    with service.client("ww-wrong") as wrong, service.client(None) as none:
        for method, path in service.schema.operations:
            for client in (wrong, none):
                answer = client.request(method, filled(path, ids))
                if path in OPEN:
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["type"] == "authentication_error"
        for shown in ("Basic d3c6", "Bearer", b"Bearer \xc3\xa9", "Bearer " + "x" * 10_000):
            assert none.get("/v1/jobs", headers={"authorization": shown}).status_code == 401


def test_what_belongs_to_another_project_is_not_there(service: Service, ids: dict[str, str]) -> None:
    with service.client(new_project(service)) as other:
        for method, path in service.schema.operations:
            if "{" not in path or path in EVERYONES:
                continue
            answer = other.request(method, filled(path, ids), json=BODIES.get((method, path)))
            # Workers are everyone's, and for whoever runs the server to drain.
            hidden = 403 if "{worker_id}" in path else 404
            assert answer.status_code == hidden, (method, path, answer.text)
        for path in ("files", "jobs", "models", "pipelines"):
            assert other.get(f"/v1/{path}").json()["data"] == []
        mine = [key["id"] for key in other.get("/v1/api_keys").json()["data"]]
        assert ids["key_id"] not in mine
        for spec in ({"dataset": ids["file_id"]},):
            assert other.post("/v1/jobs", json={"method": "pca", **spec}).status_code == 404


def test_a_role_allows_what_it_says(service: Service, http: httpx.Client, ids: dict[str, str]) -> None:
    keys = {
        role: http.post("/v1/api_keys", json={"name": role, "role": role}).json()["key"] for role in ("read", "write")
    }
    graders = "/v1/fine_tuning/alpha/graders"
    trying = ("chat/completions", "completions", "embeddings", "comparisons")
    reading_posts = {"/v1/jobs/preview", f"{graders}/run", f"{graders}/validate", *(f"/v1/{call}" for call in trying)}
    for role, key in keys.items():
        with service.client(key) as client:
            for method, path in service.schema.operations:
                if path in OPEN or "{key_id}" in path:
                    continue
                if path == "/v1/api_keys" or path.startswith(PERMISSIONS):
                    assert client.request(method, filled(path, ids)).status_code == 403
                    continue
                is_writing = method in ("POST", "PATCH", "DELETE") and path not in reading_posts
                if role == "read":
                    answer = client.request(method, filled(path, ids), headers={"range": "bytes=0-0"})
                    assert (answer.status_code == 403) is is_writing, (method, path)
    with service.client(keys["write"]) as writer:
        assert writer.delete(f"/v1/api_keys/{ids['key_id']}").status_code == 403
        assert submit(writer, ids["file_id"])["status"] == "queued"


def test_keys_are_shown_once_and_revoked_at_once(service: Service, http: httpx.Client) -> None:
    made = http.post("/v1/api_keys", json={"name": "robot", "role": "write"})
    assert made.status_code == 201
    key = made.json()
    assert re.fullmatch(r"ww-[A-Za-z0-9_-]{43}", key["key"])
    listed = {one["id"]: one for one in http.get("/v1/api_keys").json()["data"]}
    assert listed[key["id"]] == {name: value for name, value in key.items() if name != "key"}
    assert key["key"] not in http.get("/v1/api_keys").text
    assert key["key"].encode() not in (service.folder / "jobs.sqlite3").read_bytes()
    assert key["key"].encode() not in (service.folder / "jobs.sqlite3-wal").read_bytes()
    with service.client(key["key"]) as robot:
        assert robot.get("/v1/jobs").status_code == 200
        assert http.delete(f"/v1/api_keys/{key['id']}").json()["deleted"]
        assert robot.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize("secret", ["key", "hash"])
def test_what_the_database_holds_opens_nothing(service: Service, http: httpx.Client, key: str, secret: str) -> None:
    shown = hashlib.sha256(key.encode()).hexdigest() if secret == "hash" else key[:-1]
    with service.client(shown) as thief:
        answer = thief.get("/v1/jobs")
    assert answer.status_code == 401
    assert shown not in answer.text


def test_browsers_of_other_sites_get_nothing(http: httpx.Client) -> None:
    elsewhere = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    for path in ("/v1/jobs", "/v1/files", "/healthz"):
        asked = http.options(path, headers={**elsewhere, "access-control-request-headers": "authorization"})
        assert asked.status_code == 405
        for answer in (asked, http.get(path, headers=elsewhere)):
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_every_answer_says_what_browsers_may_do_with_it(service: Service, http: httpx.Client) -> None:
    answers = [http.get("/v1/jobs"), http.get("/nothing"), http.get("/v1/nothing"), http.get("/healthz")]
    answers += [http.post("/v1/jobs", content=b"{"), http.post("/v1/api_keys", json={"name": "shown"})]
    for answer in answers:
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["permissions-policy"].startswith("camera=()")
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
        assert answer.headers.get("cache-control") == ("no-store" if "/v1/" in str(answer.url) else None)
    with service.client(None) as anyone:
        policy = anyone.get("/docs").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "https:" not in policy


def test_an_admin_cannot_lock_the_project_out(http: httpx.Client) -> None:
    (mine,) = http.get("/v1/api_keys").json()["data"]
    assert http.delete(f"/v1/api_keys/{mine['id']}").status_code == 409


def test_only_the_default_project_makes_others(service: Service, http: httpx.Client) -> None:
    own = http.get("/v1/api_keys").json()["data"][0]["project"]
    assert http.post("/v1/api_keys", json={"name": "a", "project": "elsewhere"}).status_code == 403
    assert http.post("/v1/api_keys", json={"name": "a", "project": own}).json()["project"] == own
    with service.client(ADMIN_KEY) as admin:
        made = admin.post("/v1/api_keys", json={"name": "for them", "project": own, "role": "read"}).json()
        assert made["project_id"] == http.get("/v1/projects").json()["data"][0]["id"]
        assert made["project"] == own
        assert made["id"] not in [key["id"] for key in admin.get("/v1/api_keys").json()["data"]]
    assert made["id"] in [key["id"] for key in http.get("/v1/api_keys").json()["data"]]


@pytest.mark.parametrize(
    ("body", "param"),
    [({"name": ""}, "name"), ({"name": "a", "role": "god"}, "role"), ({"name": "a", "nme": 1}, "nme"), ({}, "name")],
)
def test_a_wrong_key_request_is_told_so(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = http.post("/v1/api_keys", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
