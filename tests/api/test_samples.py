"""Pictures and texts that a job shows are listed and downloaded while it runs."""

from __future__ import annotations

from pathlib import Path

import httpx

from core.jobs.events import NewEvent
from core.storage import sample_key
from tests.api.service import Service, Worker, new_project, sha256, submit, upload, work
from weightworks import Client


def show(worker: Worker, name: str, step: int, content: bytes, media_type: str = "text/plain") -> None:
    """As a supervisor does: the content into storage, then the event."""
    path = f"{name}-{step:09d}{'.txt' if media_type == 'text/plain' else '.png'}"
    worker._store(sample_key(worker.claim.job_id, worker.claim.fence, path), content)
    told = {"name": name, "step": step, "media_type": media_type, "bytes": len(content), "sha256": sha256(content)}
    worker.emit(NewEvent("sample", f"after {step} steps", data={**told, "path": path}))


def test_samples_come_newest_first_by_name_and_in_pages(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    show(worker, "words", 10, b"ten")
    show(worker, "grid", 10, b"\x89PNG", "image/png")
    show(worker, "words", 20, b"twenty")
    found = http.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    assert [(one["name"], one["step"]) for one in found] == [("words", 20), ("grid", 10), ("words", 10)]
    assert found[0]["caption"] == "after 20 steps"
    words = http.get(f"/v1/jobs/{job_id}/samples", params={"name": "words", "order": "asc", "limit": 1}).json()
    assert ([one["step"] for one in words["data"]], words["has_more"]) == ([10], True)
    rest = http.get(
        f"/v1/jobs/{job_id}/samples", params={"name": "words", "order": "asc", "after": words["last_id"]}
    ).json()
    assert [one["step"] for one in rest["data"]] == [20]
    kinds = http.get(f"/v1/jobs/{job_id}/events", params={"type": "sample"}).json()["data"]
    assert {event["id"] for event in kinds} == {one["id"] for one in found}


def test_a_sample_is_downloaded_with_its_media_type_and_etag(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    show(work(service, job_id), "grid", 3, b"\x89PNG pixels", "image/png")
    (sample,) = http.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    answer = http.get(f"/v1/jobs/{job_id}/samples/{sample['id']}")
    assert answer.content == b"\x89PNG pixels"
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == f'"{sample["sha256"]}"'
    assert http.head(f"/v1/jobs/{job_id}/samples/{sample['id']}").headers["content-length"] == "11"


def test_what_is_no_sample_is_not_found(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    show(work(service, job_id), "words", 1, b"one")
    (sample,) = http.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    assert http.get(f"/v1/jobs/{job_id}/samples/9-99").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}/samples/1-1").status_code == 404  # an event of another type
    wrong = http.get(f"/v1/jobs/{job_id}/samples/none")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "sample_id")
    with service.client(new_project(service)) as stranger:
        assert stranger.get(f"/v1/jobs/{job_id}/samples").status_code == 404
        assert stranger.get(f"/v1/jobs/{job_id}/samples/{sample['id']}").status_code == 404


def test_the_client_brings_the_newest_of_each_home(http: httpx.Client, service: Service, tmp_path: Path) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    show(worker, "words", 10, b"first try")
    show(worker, "words", 10, b"second try")
    show(worker, "grid", 10, b"\x89PNG", "image/png")
    key = http.headers["authorization"].removeprefix("Bearer ")
    with Client(base_url=str(http.base_url), api_key=key) as client:
        paths = client.jobs.download_samples(job_id, tmp_path)
    assert [path.name for path in paths] == ["grid-000000010.png", "words-000000010.txt"]
    assert paths[1].read_bytes() == b"second try"
