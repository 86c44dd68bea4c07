"""A real API process with its database, storage and Redis, and a worker's part played through `core.jobs`."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from core.jobs import checkpointing, claiming, leases, publishing, workers
from core.jobs.artifacts import Published
from core.jobs.database import Database
from core.jobs.events import NewEvent, added_events, as_row, insert_events
from core.jobs.files import STEP_METRICS
from core.jobs.ids import new_id
from core.jobs.models.base import Base
from core.jobs.status import Asked
from core.progress import Publisher
from core.storage import DiskStorage, artifact_key, checkpoint_key, file_key
from tests.api.schema import Schema

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "ww-the-admin-key-of-these-tests"
PATIENCE = 180.0
MAX_UPLOAD_BYTES = 64 * 2**20
MAX_PART_BYTES = 2**20
MAX_REQUEST_BYTES = 2**18
WEBHOOK_SECONDS = 1.5
SWEEP_SECONDS = 0.3


@dataclass
class Api:
    """A running API process."""

    base_url: str
    process: psutil.Process


@dataclass
class Service:
    """A running API, a second one beside it, and direct access to what they stand on."""

    folder: Path
    api: Api
    other_api: Api
    database: Database
    storage: DiskStorage
    publisher: Publisher
    schema: Schema
    tracebacks: int = 0  # how many the tests provoked

    def client(self, key: str | None, **options: Any) -> httpx.Client:
        """A client whose every answer is held against the schema."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        surroundings: dict[str, Any] = {"timeout": PATIENCE, "event_hooks": {"response": [self.schema.check]}}
        return httpx.Client(base_url=self.api.base_url, headers=headers, **surroundings, **options)


def environment(folder: Path, redis_url: str, **changes: str) -> dict[str, str]:
    return {
        **os.environ,
        "WEIGHTWORKS_DATABASE_URL": f"sqlite:///{folder}/jobs.sqlite3",
        "WEIGHTWORKS_REDIS_URL": redis_url,
        "WEIGHTWORKS_STORAGE_URL": str(folder / "storage"),
        "WEIGHTWORKS_ADMIN_KEY": ADMIN_KEY,
        "WEIGHTWORKS_SWEEP_SECONDS": str(SWEEP_SECONDS),
        "WEIGHTWORKS_RENEW_SECONDS": "0.5",
        "WEIGHTWORKS_REFUSALS_PER_SECOND": "50",
        "WEIGHTWORKS_WEBHOOK_PRIVATE_ADDRESSES": "true",  # the receivers are on this machine
        "WEIGHTWORKS_WEBHOOK_SECONDS": str(WEBHOOK_SECONDS),
        "WEIGHTWORKS_WEBHOOK_POLL_SECONDS": "0.1",
        "WEIGHTWORKS_WEBHOOK_PAUSE_FACTOR": "1e-5",  # all tries within two seconds
        "WEIGHTWORKS_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
        "WEIGHTWORKS_MAX_PART_BYTES": str(MAX_PART_BYTES),
        "WEIGHTWORKS_MAX_REQUEST_BYTES": str(MAX_REQUEST_BYTES),
        **changes,
    }


def start_apis(folder: Path, redis_url: str, count: int, **changes: str) -> tuple[subprocess.Popen[str], list[Api]]:
    """Start API processes on free ports and wait until they are ready."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    for listener in listeners:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `weightworks up` does
    descriptors = [listener.fileno() for listener in listeners]
    command = [sys.executable, "-m", "tests.api.serve", *map(str, descriptors)]
    with (folder / "api.log").open("ab") as log:
        parent = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(folder, redis_url, **changes),
            pass_fds=descriptors,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert parent.stdout is not None
    pids = parent.stdout.readline().split()
    urls = [f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    for listener in listeners:
        listener.close()
    for url in urls:
        assert pids, (folder / "api.log").read_text()
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE).status_code == 200
    return parent, [Api(url, psutil.Process(int(pid))) for url, pid in zip(urls, pids, strict=True)]


@contextmanager
def serving(folder: Path, redis_url: str, count: int, **changes: str) -> Iterator[Service]:
    """API processes on an empty SQLite until the block ends; their log then holds no traceback but those provoked."""
    database = Database(f"sqlite:///{folder}/jobs.sqlite3")
    Base.metadata.create_all(database.engine)
    parent, apis = start_apis(folder, redis_url, count, **changes)
    publisher, storage = Publisher(redis_url), DiskStorage(folder / "storage")
    schema = Schema(httpx.get(f"{apis[0].base_url}/openapi.json", timeout=90).json())
    service = Service(folder, apis[0], apis[-1], database, storage, publisher, schema)
    yield service
    for api in apis:
        if api.process.is_running():
            api.process.terminate()
    assert parent.wait(60) == 0
    assert parent.stdout is not None
    parent.stdout.close()
    publisher.close()
    database.close()
    log = (folder / "api.log").read_text()
    assert log.count("Traceback") == service.tracebacks, log
    assert "ww-" not in log, "a log holds a key"
    assert "whsec_" not in log, "a log holds a webhook's secret"


def new_project(service: Service, role: str = "admin") -> str:
    """A key of a project that nobody else has."""
    with service.client(ADMIN_KEY) as http:
        body = {"name": "test", "role": role, "project": new_id("p")}
        return http.post("/v1/api_keys", json=body).json()["key"]


def table(rows: int = 20, *, seed: int = 0) -> bytes:
    lines = ["a,b,c,label", *(f"{row * 37 % 11},{row % 7}.5,{row * row % 13},{'xy'[row % 2]}" for row in range(rows))]
    return ("\n".join(lines) + f"\n{seed},1,2,x\n").encode()


def upload(
    http: httpx.Client, content: bytes | None = None, *, name: str = "table.csv", purpose: str = "dataset"
) -> dict[str, Any]:
    answer = http.post(
        "/v1/files", files={"file": (name, table() if content is None else content)}, data={"purpose": purpose}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def upload_example(http: httpx.Client, method: str) -> dict[str, Any]:
    """The method's own example data set, as the API hands it out."""
    return upload(http, http.get(f"/v1/methods/{method}/example_dataset").content, name=method)


def submit(http: httpx.Client, dataset: str, **changes: Any) -> dict[str, Any]:
    answer = http.post("/v1/jobs", json={"method": "pca", "n_components": 2, "dataset": dataset, **changes})
    assert answer.status_code == 202, answer.text
    return answer.json()


@dataclass
class Worker:
    """Does what a worker does with a job, by the same functions: claim, report, checkpoint, finish."""

    service: Service
    claim: leases.Claim
    seq: int = 1
    unwritten: list[Any] = field(default_factory=list)

    def emit(self, *events: NewEvent, publish: bool = True, write: bool = True) -> None:
        """Number the events, publish them, and write them to SQL with what was not written before."""
        rows = []
        for event in events:
            self.seq += 1
            rows.append(as_row(self.claim.job_id, self.claim.fence, self.seq, event, now=time.time()))
        if publish:
            self.service.publisher.publish(rows)
        self.unwritten += rows
        if write:
            self.flush()

    def flush(self) -> None:
        with self.service.database.write() as session:
            insert_events(session, self.unwritten)
        self.unwritten = []

    def metrics(self, step: int, **options: Any) -> None:
        self.emit(NewEvent("metrics", data={"step": step, "values": {"loss": 1.0 / (step + 1)}}), **options)

    def progress(self, step: int, total: int, **metrics: float) -> Asked | None:
        with self.service.database.write() as session:
            told = {"step": step, "total": total, "rate": 10.0, "at": time.time()}
            return leases.renew_lease(session, self.claim, lease_seconds=60, progress=told, metrics=metrics)

    def checkpoint(self, step: int, content: bytes, *, is_epoch: bool = False, **metrics: float) -> str:
        key = checkpoint_key(self.claim.job_id, self.claim.fence, step)
        self._store(key, content)
        with self.service.database.write() as session:
            added = checkpointing.add_checkpoint(
                session,
                self.claim,
                key=key,
                step=step,
                size=len(content),
                sha256=sha256(content),
                metrics=metrics or {"loss": 0.5},
                is_epoch=is_epoch,
            )
        for superseded in added.superseded:
            self.service.storage.delete(superseded)
        return added.id

    def succeed(self, files: Mapping[str, bytes] | None = None, **metrics: float) -> str:
        files = files or {"model.safetensors": b"weights"}
        if STEP_METRICS in files:
            self._store(file_key(sha256(files[STEP_METRICS])), files[STEP_METRICS])
        published = self.publish_files(files)
        with self.service.database.write() as session:
            lineage = {"job": self.claim.job_id}
            model = publishing.succeed_job(session, self.claim, files=published, metrics=metrics, lineage=lineage)
        self.service.publisher.publish(added_events(session))
        return model

    def publish_files(self, files: Mapping[str, bytes]) -> Sequence[Published]:
        published = []
        for path, content in sorted(files.items()):
            key = artifact_key(self.claim.job_id, self.claim.fence, path)
            self._store(key, content)
            media_type = "application/json" if path.endswith(".json") else "application/octet-stream"
            published.append(Published(path, key, len(content), sha256(content), media_type))
        return published

    def _store(self, key: str, content: bytes) -> None:
        with self.service.storage.incoming_file() as (path, file):
            file.write(content)
            file.flush()
            self.service.storage.keep(path, key)


def start_worker(service: Service, owner: str = "w-1", *, has_gpu: bool = False) -> str:
    """Have a worker tell that it is there, once; it is gone seconds later."""
    with service.database.write() as session:
        workers.beat(session, owner, host="here", has_gpu=has_gpu, is_draining=False, is_asked=False)
    return owner


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def work(service: Service, job_id: str, *, lease_seconds: float = 60.0) -> Worker:
    """Claim jobs until it is this one."""
    while True:
        with service.database.write() as session:
            claim = claiming.claim_job(
                session, owner="w-1", devices=("auto", "cpu", "cuda"), lease_seconds=lease_seconds
            )
        assert claim is not None, "the job cannot be claimed"
        service.publisher.publish(added_events(session))
        if claim.job_id == job_id:
            return Worker(service, claim)


def wait_for(condition: Any, *, seconds: float = 90.0) -> Any:
    """What `condition()` answers once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def sse(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    """(id, event, data) of each message; ends at [DONE] or with the stream. Comments are passed over."""
    message: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            message[name] = value
            continue
        if message.get("data") == "[DONE]":
            yield "", "", "[DONE]"
            return
        if message:
            yield message["id"], message["event"], json.loads(message["data"])
        message = {}
