"""A service without its API: a database, storage, Redis, real worker processes, and the ways to watch them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.catalog import method_named, read_spec
from core.jobs import checkpointing, store
from core.jobs.artifacts import list_artifacts
from core.jobs.database import Database
from core.jobs.events import list_events
from core.jobs.ids import new_id
from core.jobs.models.base import Base
from core.jobs.models.files import File
from core.jobs.models.jobs import Event, Job
from core.jobs.models.projects import Project
from core.jobs.models.results import Checkpoint
from core.jobs.status import TERMINAL, Status
from core.progress import Publisher
from core.queue import LOOK, QUEUES, make_app
from core.storage import DiskStorage, file_key

PROJECT = "proj-test"
ROOT = Path(__file__).parents[2]
PATIENCE = 180.0


class Service:
    """What the tests of the worker stand on."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder}/jobs.sqlite3")
        self.storage = DiskStorage(folder / "storage")
        self.publisher = Publisher(redis_url)
        self.queue = make_app(redis_url)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "WORKER_TEST": str(folder),
            "WEIGHTWORKS_DATABASE_URL": f"sqlite:///{folder}/jobs.sqlite3",
            "WEIGHTWORKS_REDIS_URL": redis_url,
            "WEIGHTWORKS_STORAGE_URL": str(folder / "storage"),
            "WEIGHTWORKS_ADMIN_KEY": "ww-not-for-trainers",
            "WEIGHTWORKS_LEASE_SECONDS": "6",
            "WEIGHTWORKS_RENEW_SECONDS": "0.3",
            "WEIGHTWORKS_SWEEP_SECONDS": "0.5",
            "WEIGHTWORKS_STOP_SECONDS": "1.5",
            "WEIGHTWORKS_RETRY_SECONDS": "0.2",
        }
        Base.metadata.create_all(self.database.engine)
        with self.database.write() as session:
            session.add(Project(id=PROJECT, name="test", created_at=0))

    # Workers.

    def start_worker(self, **environment: str) -> subprocess.Popen[bytes]:
        """A worker of its own; it is warm some seconds later."""
        log = (self.folder / f"worker-{len(self.workers)}.log").open("wb")
        with log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker"],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def supervisor_of(self, job_id: str) -> psutil.Process:
        """The process that supervises the job."""
        owner = self.job(job_id).owner
        assert owner is not None
        return psutil.Process(int(owner.rpartition("-")[2]))

    def zygote_of(self, job_id: str) -> psutil.Process:
        """The fork server of the worker that trains the job."""
        return self.supervisor_of(job_id).children()[0]

    def trainer_of(self, job_id: str) -> psutil.Process:
        """The process that trains the job."""
        found: list[psutil.Process] = self.until(lambda: self.zygote_of(job_id).children())
        return found[0]

    def left_over(self) -> list[psutil.Process]:
        """What our workers started, they are gone, and it is not."""
        alive = {worker.pid for worker in self.workers if worker.poll() is None}
        for pid in list(alive):
            alive |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
        return [process for process in psutil.process_iter() if process.pid not in alive and self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("WORKER_TEST") == str(self.folder)
        except psutil.Error:
            return False

    # Jobs.

    def upload(self, content: bytes) -> str:
        """A file of the project."""
        sha256 = hashlib.sha256(content).hexdigest()
        with self.storage.incoming_file() as (path, file):
            file.write(content)
            file.flush()
            self.storage.keep(path, file_key(sha256))
        row = File(
            id=new_id("file"),
            project_id=PROJECT,
            filename="data",
            purpose="dataset",
            bytes=len(content),
            sha256=sha256,
            created_at=0,
        )
        with self.database.write() as session:
            session.add(row)
        return row.id

    def example(self, method: str, **changes: Any) -> dict[str, Any]:
        """The spec of a method's example, its data set uploaded."""
        example = method_named(method).example
        with tempfile.TemporaryDirectory() as folder:
            example.write_dataset(Path(folder) / "data")
            content = (Path(folder) / "data").read_bytes()
        return {**example.spec, "dataset": self.upload(content), **changes}

    def submit(self, spec: dict[str, Any], *, needs: dict[str, str] | None = None) -> str:
        """A queued job's id."""
        with self.database.write() as session:
            job = store.create_job(session, project_id=PROJECT, spec=read_spec(spec), max_attempts=3, needs=needs)
        self.queue.send_task(LOOK, queue=QUEUES["auto"], ignore_result=True)
        return job.id

    def job(self, job_id: str) -> Job:
        """The job's row."""
        with self.database.read() as session:
            return store.get_job(session, PROJECT, job_id)

    def events(self, job_id: str, *types: str) -> list[Event]:
        """The job's events in SQL."""
        with self.database.read() as session:
            return list_events(session, job_id, types=types, limit=10_000)

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """The job's checkpoints, the furthest first."""
        with self.database.read() as session:
            return checkpointing.latest_checkpoints(session, job_id)

    def artifacts(self, job_id: str) -> dict[str, Path]:
        """The job's published files: path to where it lies."""
        with self.database.read() as session:
            return {row.path: self.storage.existing(row.key) for row in list_artifacts(session, job_id)}

    # Waiting.

    def until(self, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """What `look` answers, once that is true."""
        ends_at = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < ends_at, f"waited {seconds} seconds in vain\n{self.logs()}"
            time.sleep(0.02)
        return found

    def until_ended(self, job_id: str) -> Job:
        """The job, once it is over."""
        return self.until(lambda: job if (job := self.job(job_id)).status in TERMINAL else None)

    def until_training(self, job_id: str) -> None:
        """Wait until the job has told of a step."""
        self.until(lambda: any(event.type == "metrics" for event in self.publisher.published(job_id)))
        assert self.job(job_id).status is Status.RUNNING, "the job was over before it could be disturbed"

    def logs(self) -> str:
        """What the workers wrote, its end."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("worker-*.log")))

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.until(lambda: not self.left_over())
        self.database.close()
        self.publisher.close()
        self.queue.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), redis_url)
    yield service
    service.close()
