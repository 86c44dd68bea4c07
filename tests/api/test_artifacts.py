"""What a job leaves: checkpoints while it runs, artifacts and the model once it is over."""

from __future__ import annotations

import hashlib
import io
import tarfile

import httpx

from tests.api.service import Service, submit, upload, work

FILES = {"model.safetensors": b"w" * 5000, "config.json": b"{}", f"deep/{'long' * 40}.txt": b"text", "empty": b""}


def test_checkpoints_can_be_downloaded_while_the_job_runs(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    worker.checkpoint(10, b"state at 10")
    worker.checkpoint(20, b"state at 20")
    page = http.get(f"/v1/jobs/{job_id}/checkpoints").json()
    assert [row["step"] for row in page["data"]] == [20, 10]
    newest = page["data"][0]
    assert newest["metrics"] == {"loss": 0.5}
    answer = http.get(f"/v1/jobs/{job_id}/checkpoints/{newest['id']}")
    assert answer.content == b"state at 20"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    part = http.get(f"/v1/jobs/{job_id}/checkpoints/{newest['id']}", headers={"range": "bytes=9-"})
    assert (part.status_code, part.content) == (206, b"20")
    oldest = http.get(f"/v1/jobs/{job_id}/checkpoints", params={"order": "asc", "limit": 1}).json()
    assert (oldest["data"][0]["step"], oldest["has_more"]) == (10, True)
    assert http.get(f"/v1/jobs/{job_id}/checkpoints/ckpt-none").status_code == 404
    weights = http.get(f"/v1/jobs/{job_id}/weights")
    assert (weights.status_code, weights.headers["x-should-retry"]) == (409, "false")
    assert f"/v1/jobs/{job_id}/checkpoints" in weights.json()["error"]["message"]
    for path in ("archive", "artifacts/model.safetensors"):
        assert http.get(f"/v1/jobs/{job_id}/{path}").status_code == 409
    assert http.get(f"/v1/jobs/{job_id}/artifacts").json()["data"] == []


def test_artifacts_weights_and_archive(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    work(service, job_id).succeed(FILES)
    manifest = http.get(f"/v1/jobs/{job_id}/artifacts").json()
    assert manifest["bytes"] == sum(map(len, FILES.values()))
    assert [file["path"] for file in manifest["data"]] == sorted(FILES)
    for file in manifest["data"]:
        answer = http.get(f"/v1/jobs/{job_id}/artifacts/{file['path']}")
        assert answer.content == FILES[file["path"]]
        assert answer.headers["etag"] == f'"{file["sha256"]}"'
        assert answer.headers["content-type"].startswith(file["media_type"])
    weights = http.get(f"/v1/jobs/{job_id}/weights", headers={"range": "bytes=0-3"})
    assert (weights.status_code, weights.content) == (206, b"wwww")
    assert "model.safetensors" in weights.headers["content-disposition"]
    assert http.head(f"/v1/jobs/{job_id}/weights").headers["content-length"] == "5000"
    for outside in ("nothing", "..%2F..%2Fjobs.sqlite3", "%2Fetc%2Fpasswd"):
        missing = http.get(f"/v1/jobs/{job_id}/artifacts/{outside}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    archive = http.get(f"/v1/jobs/{job_id}/archive")
    assert int(archive.headers["content-length"]) == len(archive.content)
    with tarfile.open(fileobj=io.BytesIO(archive.content)) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    assert found == {f"{job_id}/{path}": content for path, content in FILES.items()}
    again = http.get(f"/v1/jobs/{job_id}/archive", headers={"if-none-match": archive.headers["etag"]})
    assert again.status_code == 304
    assert http.head(f"/v1/jobs/{job_id}/archive").headers["content-length"] == archive.headers["content-length"]


def test_an_adapter_has_weights_too(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    work(service, job_id).succeed({"adapter_model.safetensors": b"adapter", "base/model.safetensors": b"base"})
    assert http.get(f"/v1/jobs/{job_id}/weights").content == b"adapter"


def test_a_model_comes_from_a_job_and_can_be_deleted(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"], name="mine")["id"]
    model_id = work(service, job_id).succeed(FILES, accuracy=0.75)
    model = http.get(f"/v1/models/{model_id}").json()
    assert (model["job"], model["name"], model["method"]) == (job_id, "mine", "pca")
    assert model["metrics"] == {"accuracy": 0.75}
    assert http.get("/v1/models").json()["data"] == [model]
    stored = list((service.folder / "storage" / "jobs" / job_id).rglob("*.safetensors"))
    assert stored
    assert http.delete(f"/v1/models/{model_id}").json() == {"id": model_id, "object": "model", "deleted": True}
    assert not any(path.exists() for path in stored)
    assert http.get(f"/v1/models/{model_id}").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}/weights").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}").json()["model"] is None


def test_models_have_pages_across_both_kinds(http: httpx.Client, service: Service) -> None:
    from tests.api.test_files import model_archive

    made = []
    for index in range(4):
        if index % 2:
            made.append(upload(http, model_archive(), name="m.zip", purpose="base-model")["id"])
        else:
            made.append(work(service, submit(http, upload(http)["id"])["id"]).succeed())
    seen, after = [], None
    while True:
        page = http.get("/v1/models", params={"limit": 1, **({"after": after} if after else {})}).json()
        seen += [model["id"] for model in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert sorted(seen) == sorted(made)
    assert seen == [model["id"] for model in http.get("/v1/models").json()["data"]]
