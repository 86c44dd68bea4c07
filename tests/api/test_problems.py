"""Every error leaves in the same envelope, whoever raised it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
import redis
from sqlalchemy import update

from core.jobs.models.jobs import Job
from tests.api.service import MAX_REQUEST_BYTES, Service, submit, upload


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def test_addresses_and_methods_that_are_not_there(http: httpx.Client) -> None:
    for path in ("/nothing", "/v1/nothing", "/v1/jobs/", "/v1/jobs/x/y/z"):
        answer = http.get(path)
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
    answer = http.put("/v1/jobs")
    assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    assert http.put("/v1/files/file-1").headers["allow"] == "DELETE, GET"
    assert http.put("/v1/jobs/preview").headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{nonsense", 400, None),
        (b"\xff\xfe{}", 400, None),
        (b"[]", 422, None),
        (b"null", 422, None),
        (b"", 422, None),
        (b'"text"', 422, None),
        (b"{}", 422, "method"),
        (b'{"method": "pca", "dataset": "file-1", "seed": 1e999}', 422, "seed"),
        (b'{"method": "pca", "dataset": "file-1", "seed": 99999999999999999999999}', 422, "seed"),
        (b'{"method": "pca", "dataset": "file-1", "name": "\\ud800"}', 422, "name"),
        (b'{"method": "pca", "dataset": "file-1", "name": "a\\u0000b"}', 422, "name"),
        (b'{"method": "pca", "dataset": "file-1", "metadata": {"\\u0000": "b"}}', 422, "metadata"),
        (b'{"method": "pca", "dataset": "file-\\u0000"}', 422, "dataset"),
        (b'{"method": ["pca"]}', 422, "method"),
        (b'{"method": "pca", "dataset": "file-1", "seed": "1"}', 422, "seed"),
        (b'{"method": "pca", "dataset": "file-1", "seed": true}', 422, "seed"),
        (b'{"method": "simclr", "dataset": "file-1", "compile": 1}', 422, "compile"),
        (b'{"method": "simclr", "dataset": "file-1", "compile": "yes"}', 422, "compile"),
        (b'{"method": "fine_tuning", "dataset": "file-1", "task": {"a": 1}, "strategy": []}', 422, "task"),
        (b'{"method": "simclr", "dataset": "file-1", "batch_size": 1' + b"0" * 400 + b"}", 422, "batch_size"),
        (b"[" * 100_000, 400, None),
    ],
)
def test_bodies_that_are_no_spec(http: httpx.Client, body: bytes, status: int, param: str | None) -> None:
    for path in ("/v1/jobs", "/v1/jobs/preview"):
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        assert error_of(answer)["param"] == param


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/jobs?limit=0", "limit"),
        ("/v1/jobs?limit=101", "limit"),
        ("/v1/jobs?limit=x", "limit"),
        ("/v1/jobs?order=up", "order"),
        ("/v1/jobs?status=odd", "status.0"),
        ("/v1/files?after=", "after"),
        ("/v1/jobs/job-1/metrics?max_points=0", "max_points"),
    ],
)
def test_parameters_out_of_their_limits(http: httpx.Client, path: str, param: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 422
    assert (error_of(answer)["param"], error_of(answer)["code"]) == (param, "invalid_parameter")


def test_bodies_over_the_limit_are_refused(http: httpx.Client) -> None:
    large = b'{"method": "' + b"x" * MAX_REQUEST_BYTES + b'"}'

    def parts() -> Iterator[bytes]:
        for start in range(0, len(large), 1000):
            yield large[start : start + 1000]

    for content in (large, parts()):
        for content_type in ("application/json", "multipart/form-data; boundary=x"):
            content = large if isinstance(content, bytes) else parts()
            answer = http.post("/v1/jobs", content=content, headers={"content-type": content_type})
            assert (answer.status_code, error_of(answer)["code"]) == (413, "too_large")


def test_a_nul_in_the_address(http: httpx.Client) -> None:
    for path in ("/v1/jobs/job-%00", "/v1/jobs?after=%00", "/v1/jobs?metadata[a%00]=1"):
        assert http.get(path).status_code == 400


def test_what_is_unforeseen_is_told_without_its_insides(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    with service.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(progress={"damaged": True}))
    answer = http.get(f"/v1/jobs/{job_id}")
    service.tracebacks += 1
    assert answer.status_code == 500
    assert error_of(answer)["type"] == "server_error"
    assert answer.headers["x-request-id"] in error_of(answer)["message"]
    assert "damaged" not in answer.text
    with service.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(progress=None))
    http.post(f"/v1/jobs/{job_id}/cancel")


def test_a_part_that_is_away_is_named(service: Service, redis_client: redis.Redis) -> None:
    process = psutil.Process(redis_client.info("server")["process_id"])
    process.suspend()
    try:
        with service.client(None) as http:
            answer = http.get("/readyz")
    finally:
        process.resume()
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": "ok", "redis": "unreachable", "storage": "ok"}
