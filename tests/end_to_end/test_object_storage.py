"""The whole service with its storage in a bucket: an API, a real worker, a real S3 server, and the wire between."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from safetensors.torch import load
from sqlalchemy import select

from core.catalog import method_named
from core.jobs.checkpointing import latest_checkpoints
from core.jobs.models.files import File
from core.jobs.models.jobs import Event
from core.jobs.models.results import Artifact, Checkpoint
from core.storage import file_key, sample_key
from core.storage.objects import ObjectStorage
from tests.api.service import (
    ADMIN_KEY,
    PATIENCE,
    ROOT,
    Service,
    environment,
    serving,
    sha256,
    table,
    upload,
    wait_for,
)
from tests.s3 import ACCESS_KEY, S3, SECRET_KEY, Wire, open_bucket, settings_of
from tests.tiny_llama import conversations, llama_zip
from weightworks import Client

PART_BYTES = 2**19
LONG = {"epochs": None, "steps": 250, "checkpoint_every": 20, "hidden_sizes": [256, 256]}
QUICK = {
    "WEIGHTWORKS_LEASE_SECONDS": "6",
    "WEIGHTWORKS_RENEW_SECONDS": "0.3",
    "WEIGHTWORKS_RETRY_SECONDS": "0.2",
    "WEIGHTWORKS_COLLECT_SECONDS": "0.5",
    "WEIGHTWORKS_COLLECT_GRACE_SECONDS": "5",
    "OMP_NUM_THREADS": "1",
}


class Site:
    """The service, its bucket as we see it, and its parts."""

    def __init__(
        self, service: Service, storage: ObjectStorage, wire: Wire, scratch: Path, worker: psutil.Process
    ) -> None:
        self.service, self.storage, self.wire, self.scratch, self.worker = service, storage, wire, scratch, worker
        self.http = service.client(ADMIN_KEY)

    def keys(self, *folders: str) -> set[str]:
        """What lies in the bucket."""
        return {found.key for folder in folders for found in self.storage.files_below(folder)}

    def pointed_to(self) -> set[str]:
        """What must lie there. More may: what reached the bucket while the answer was lost, until it is collected."""
        with self.service.database.read() as session:
            keys = {*session.scalars(select(Artifact.key)), *session.scalars(select(Checkpoint.key))}
            samples = session.scalars(select(Event).where(Event.type == "sample"))
            keys |= {sample_key(event.job_id, event.fence, event.data["path"]) for event in samples}
            return keys | {file_key(sha256) for sha256 in session.scalars(select(File.sha256))}

    def submit(self, spec: dict[str, Any]) -> str:
        answer = self.http.post("/v1/jobs", json=spec)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        return self.http.get(f"/v1/jobs/{job_id}").json()

    def until_ended(self, job_id: str) -> dict[str, Any]:
        """The job, once it is over."""
        ends = ("succeeded", "failed", "cancelled")
        return wait_for(lambda: job if (job := self.job(job_id))["status"] in ends else None, seconds=180)

    def until_checkpoint(self, job_id: str) -> None:
        wait_for(lambda: self.http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"], seconds=180)

    def messages(self, job_id: str) -> str:
        page = self.http.get(f"/v1/jobs/{job_id}/events", params={"limit": 100, "order": "desc", "type": "message"})
        return page.text

    def trainer(self) -> psutil.Process:
        """The process that trains, once there is one."""

        def found() -> list[psutil.Process]:
            below = self.worker.children(recursive=True)
            return [one for process in below if "worker.zygote" in process.cmdline() for one in process.children()]

        return wait_for(found)[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, redis_url: str, s3: S3) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("objects")
    wire, bucket, scratch = Wire(s3.url), s3.new_bucket(), folder / "scratch"
    changes = {**QUICK, **settings_of(bucket, wire.url, scratch), "WEIGHTWORKS_S3_PUBLIC_ENDPOINT_URL": s3.url}
    with serving(folder, redis_url, 1, **changes) as service, (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker"],
            cwd=ROOT,
            env=environment(folder, redis_url, **changes),
            stdout=log,
            stderr=log,
        )
        site = Site(service, open_bucket(bucket, s3.url, folder / "ours"), wire, scratch, psutil.Process(worker.pid))
        yield site
        site.http.close()
        worker.terminate()
        worker.wait(60)
        wire.close()
    for name in ("api.log", "worker.log"):
        assert SECRET_KEY not in (folder / name).read_text()
        assert ACCESS_KEY not in (folder / name).read_text()


@pytest.fixture(scope="module")
def dataset(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that was uploaded whole."""
    path = tmp_path_factory.mktemp("data") / "data"
    method_named("autoencoder").example.write_dataset(path)
    return upload(site.http, path.read_bytes(), name="data")["id"]


def spec_of(dataset: str, **changes: Any) -> dict[str, Any]:
    return {**method_named("autoencoder").example.spec, "dataset": dataset, **LONG, **changes}


def test_what_is_uploaded_is_downloaded_from_the_bucket(site: Site, s3: S3) -> None:
    content = table(3000, seed=1)
    file = upload(site.http, content)
    url = f"/v1/files/{file['id']}/content"
    sent = site.http.get(url)
    assert sent.status_code == 302
    address = sent.headers["location"]
    assert address.startswith(f"{s3.url}/bucket-")
    assert SECRET_KEY not in address
    answer = httpx.get(address, timeout=PATIENCE)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''table.csv"
    assert httpx.get(address, headers={"range": "bytes=5-9"}, timeout=PATIENCE).content == content[5:10]
    head = site.http.head(url)
    assert head.status_code == 302
    assert httpx.head(head.headers["location"], timeout=PATIENCE).headers["content-length"] == str(len(content))
    etag = f'"{sha256(content)}"'
    assert site.http.get(url, headers={"if-none-match": etag}).status_code == 304
    outside = site.http.get(url, headers={"range": f"bytes={len(content)}-"})
    assert (outside.status_code, outside.json()["error"]["code"]) == (416, "range_not_satisfiable")
    rest = site.http.get(url, headers={"range": "bytes=100-", "if-range": etag})
    assert (rest.status_code, rest.content) == (206, content[100:]), "the bucket does not know this ETag: we do"


def test_an_upload_in_parts_becomes_one_object_and_the_client_gets_it_back(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "large.csv"
    source.write_bytes(table(120_000, seed=2))
    assert source.stat().st_size > 2 * PART_BYTES
    with Client(base_url=site.service.api.base_url, api_key=ADMIN_KEY) as client:
        file = client.files.upload(source, part_bytes=PART_BYTES)
        assert site.keys("parts") == set()
        again = client.files.upload(source, part_bytes=PART_BYTES)
        assert site.keys("files") >= {f"files/{file.sha256[:2]}/{file.sha256}"}
        fetched = client.files.download(file.id, tmp_path / "back")
        assert hashlib.sha256(Path(fetched).read_bytes()).hexdigest() == file.sha256
        client.files.delete(file.id)
        assert any(file.sha256 in key for key in site.keys("files")), "another file has the same content"
        client.files.delete(again.id)
    assert not any(file.sha256 in key for key in site.keys("files"))


def test_a_job_that_is_killed_goes_on_from_its_checkpoint_in_the_bucket(site: Site, dataset: str) -> None:
    undisturbed = site.submit(spec_of(dataset))
    assert site.until_ended(undisturbed)["status"] == "succeeded"
    job_id = site.submit(spec_of(dataset))
    trainer = site.trainer()  # first, since to find a process takes longer than many a step
    site.until_checkpoint(job_id)
    trainer.suspend()
    (checkpoint, *_) = site.http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    there = site.http.get(f"/v1/jobs/{job_id}/checkpoints/{checkpoint['id']}")
    assert there.status_code == 302
    trainer.kill()
    job = site.until_ended(job_id)
    assert (job["status"], len(job["attempts"])) == ("succeeded", 2), job
    assert "Goes on from the checkpoint" in site.messages(job_id)
    weights = [
        httpx.get(site.http.get(f"/v1/jobs/{one}/weights").headers["location"], timeout=PATIENCE).content
        for one in (undisturbed, job_id)
    ]
    assert weights[0] == weights[1]
    assert load(weights[0])
    archive = site.http.get(f"/v1/jobs/{job_id}/archive")
    assert (archive.status_code, len(archive.content)) == (200, int(archive.headers["content-length"]))
    assert weights[0] in archive.content
    assert not (site.scratch / "runs").exists() or not list((site.scratch / "runs").iterdir())
    with site.service.database.read() as session:
        known = {row.key for row in latest_checkpoints(session, job_id)}
    wait_for(lambda: {key for key in site.keys(f"jobs/{job_id}") if "/checkpoints/" in key} == known)
    assert site.http.delete(f"/v1/jobs/{undisturbed}").is_success
    assert site.keys(f"jobs/{undisturbed}") == set()


def test_the_results_of_a_fine_tuning_job_are_a_file_in_the_bucket(site: Site) -> None:
    upload(site.http, llama_zip(), name="tiny.zip", purpose="base-model")
    data = upload(site.http, conversations(), name="data.jsonl", purpose="fine-tune")["id"]
    asked = {"model": "tiny", "training_file": data, "hyperparameters": {"n_epochs": 1, "batch_size": 6}, "samples": 0}
    job_id = site.http.post("/v1/fine_tuning/jobs", json=asked).raise_for_status().json()["id"]
    assert site.until_ended(job_id)["status"] == "succeeded"
    (results,) = site.http.get(f"/v1/fine_tuning/jobs/{job_id}").json()["result_files"]
    told = site.http.get(f"/v1/files/{results}").json()
    assert file_key(told["sha256"]) in site.keys("files")
    content = httpx.get(site.http.get(f"/v1/files/{results}/content").headers["location"], timeout=PATIENCE).content
    assert sha256(content) == told["sha256"]
    assert [line.partition(b",")[0] for line in content.splitlines()] == [b"step", b"1", b"2"]


def test_a_job_lives_through_a_storage_that_is_away_for_a_while(site: Site, dataset: str) -> None:
    job_id = site.submit(spec_of(dataset, steps=400))
    site.until_checkpoint(job_id)
    site.wire.cut()
    try:
        wait_for(lambda: "could not be kept" in site.messages(job_id))
        refused = site.http.post("/v1/files", files={"file": ("a.csv", table(seed=7))})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
        ready = site.http.get("/readyz")
        assert ready.status_code == 503
        assert "object storage cannot be reached" in ready.json()["checks"]["storage"]
    finally:
        site.wire.mend()
    job = site.until_ended(job_id)
    assert job["status"] == "succeeded", job
    assert site.http.get("/readyz").status_code == 200


def test_a_storage_that_hangs_for_longer_than_a_lease_costs_no_job_its_worker(site: Site, dataset: str) -> None:
    job_id = site.submit(spec_of(dataset, steps=400))
    site.until_checkpoint(job_id)
    site.wire.hold()
    try:
        time.sleep(1.3 * float(QUICK["WEIGHTWORKS_LEASE_SECONDS"]))
        assert site.job(job_id)["status"] == "running", "it must wait for its checkpoints to be in storage"
    finally:
        site.wire.mend()
    job = site.until_ended(job_id)
    assert (job["status"], len(job["attempts"])) == ("succeeded", 1), job


def test_what_nothing_points_to_is_collected(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "orphan"
    source.write_bytes(b"orphan")
    lost = {
        "parts/part-lost",
        f"files/00/{'0' * 64}",
        "jobs/job-lost/1/artifacts/x",
        f"leaving/files/00/{'0' * 64}/dead",
    }
    for key in lost:
        site.storage.link(source, key)
    wait_for(lambda: site.keys("parts", "files", "jobs", "leaving") == site.pointed_to())
    killed = site.scratch / "incoming" / "killed"
    killed.write_bytes(b"half")
    wait_for(lambda: not killed.exists())


def test_a_trainer_sees_no_key(site: Site, dataset: str) -> None:
    job_id = site.submit(spec_of(dataset, steps=100_000))
    site.until_checkpoint(job_id)
    told = site.trainer().environ()
    assert not {ACCESS_KEY, SECRET_KEY} & set(told.values())
    assert not [name for name in told if name.startswith(("WEIGHTWORKS_S3", "AWS_"))]
    assert site.http.post(f"/v1/jobs/{job_id}/cancel").is_success
    assert site.until_ended(job_id)["status"] == "cancelled"
