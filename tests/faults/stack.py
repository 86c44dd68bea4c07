"""A whole service whose every part can be broken: database, Redis, storage, API processes, workers."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from core.jobs.database import Database
from core.jobs.models.base import Base
from core.jobs.models.jobs import Job
from core.jobs.status import Status
from core.progress import Publisher
from core.queue import make_app
from core.storage import DiskStorage
from tests.faults.databases import make_database
from tests.faults.disks import Disks
from tests.faults.parts import PATIENCE, Apis, Redis, Worker, environment_of, is_alive, suspended, until

ADMIN_KEY = "ww-the-admin-key-of-the-fault-matrix"
STIR_SECONDS = 0.05  # for what was stopped in the midst of a transaction to end it
STACK = "FAULTS_STACK"  # in the environment of our workers, and of all that they start
SETTINGS = {
    "LEASE_SECONDS": "6",
    "RENEW_SECONDS": "0.3",
    "SWEEP_SECONDS": "0.3",
    "STOP_SECONDS": "1.5",
    "RETRY_SECONDS": "0.2",
    "THREADS": "1",
    "WEBHOOK_PRIVATE_ADDRESSES": "true",
    "WEBHOOK_SECONDS": "1",
    "WEBHOOK_POLL_SECONDS": "0.2",
    "COLLECT_SECONDS": "0.5",
    "COLLECT_GRACE_SECONDS": "0.2",
}


class Stack:
    """The parts, by name, and the ways to look at what they do.

    `kind`: of database, `sqlite` or `postgresql`. `settings`: WEIGHTWORKS_<NAME> beside or instead of SETTINGS.
    """

    def __init__(self, folder: Path, kind: str, *, workers: int = 3, apis: int = 2, **settings: str) -> None:
        self.folder = folder
        self.kind = kind
        self.redis = Redis()
        self.disks = Disks(folder)
        self.skipped: dict[str, str] = {}  # faults that cannot be made here, and why
        self.stories: dict[str, list[str]] = {}  # what the jobs said of faults that violated something
        self.server = make_database(kind, self.disks.database)
        self.database = Database(self.server.url)
        self.storage = DiskStorage(self.disks.storage)
        self.publisher = Publisher(self.redis.url)
        self.queue = make_app(self.redis.url)
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "WEIGHTWORKS_DATABASE_URL": self.server.url,
            "WEIGHTWORKS_REDIS_URL": self.redis.url,
            "WEIGHTWORKS_STORAGE_URL": str(self.storage.root),
            "WEIGHTWORKS_ADMIN_KEY": ADMIN_KEY,
            **{f"WEIGHTWORKS_{name}": value for name, value in {**SETTINGS, **settings}.items()},
        }
        self.apis = Apis(self.environment, folder / "api.log", count=apis)
        self.workers: list[Worker] = []
        self.http = httpx.Client(
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
            timeout=10,
            limits=httpx.Limits(max_connections=None),
        )
        self.one_worker_away = threading.Lock()  # for who takes a worker away for long: others must go on
        self._wanted_workers = workers
        self._started_workers = 0
        self._starting = threading.Lock()

    @property
    def lease_seconds(self) -> float:
        """How long a worker owns a job without renewing."""
        return float(self.environment["WEIGHTWORKS_LEASE_SECONDS"])

    # Starting and ending.

    def start(self) -> None:
        """Start everything; returns once jobs are taken by every worker."""
        self.apis.prepare()
        self.server.start()
        self.redis.start()
        Base.metadata.create_all(self.database.engine)
        self.apis.start(0)  # the first makes the project
        self.mend()
        until(lambda: all(worker.is_warm for worker in self.workers), seconds=300, what="for warm workers")

    def mend(self) -> None:
        """Start again what does not run; returns once the API answers, while new workers still warm up."""
        with self._starting:
            self.server.start()
            self.redis.start()
            self._replace_workers()
            self.apis.start()

    def replace_workers(self) -> None:
        """Start a worker for each that has ended, as whatever runs them in production does."""
        with self._starting:
            self._replace_workers()

    def _replace_workers(self) -> None:
        self.workers = [worker for worker in self.workers if worker.is_running]
        while len(self.workers) < self._wanted_workers:
            self.start_worker()

    def start_worker(self, **environment: str) -> Worker:
        """One more worker; it is warm some seconds later."""
        self._started_workers += 1
        ours = {**self.environment, STACK: str(self.folder), **environment}
        worker = Worker(ours, self.folder, f"worker-{self._started_workers}")
        self.workers.append(worker)
        return worker

    @contextlib.contextmanager
    def stopped(self, *workers: Worker) -> Iterator[None]:
        """SIGSTOP to all of these workers until the block ends, while none of them holds a lock that others need.

        One stopped in the midst of a claim keeps all others from claiming until the database ends its transaction;
        with SQLite, from writing anything, and no one can help it.
        """
        while True:
            with suspended(*(process for worker in workers for process in worker.family())):
                if not self.server.is_locked():
                    yield
                    return
            time.sleep(STIR_SECONDS)

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            worker.close()
        self.apis.close()
        self.http.close()
        self.queue.close()
        self.publisher.close()
        self.database.close()
        self.redis.close()
        self.server.close()
        self.disks.close()

    # Looking.

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An API's answer: of the first that gives one which is not its own failure."""
        ends_at = time.monotonic() + PATIENCE
        while time.monotonic() < ends_at:
            for address in self.apis.addresses:
                with contextlib.suppress(httpx.HTTPError):
                    answer = self.http.request(method, f"{address}{path}", **options)
                    if answer.status_code < 500 and answer.status_code != 429:
                        return answer
            time.sleep(0.1)
        raise TimeoutError(f"{method} {path}: no API answered for {PATIENCE:.0f} seconds")

    def read(self, look: Callable[[Session], Any], *, seconds: float = PATIENCE) -> Any:
        """What `look` answers; tried again while the database is away."""
        ends_at = time.monotonic() + seconds
        while True:
            try:
                with self.database.read() as session:
                    return look(session)
            except DBAPIError:
                if time.monotonic() > ends_at:
                    raise
                time.sleep(0.1)

    def left_over(self) -> list[psutil.Process]:
        """What our workers started and is alive without a worker that is."""
        ours = [process for process in psutil.process_iter() if environment_of(process).get(STACK) == str(self.folder)]
        with_worker = {process.pid for worker in list(self.workers) for process in worker.family()}
        return [process for process in ours if is_alive(process) and process.pid not in with_worker]

    def trainers(self) -> list[psutil.Process]:
        """Every process that trains now: the fork servers' children."""
        found = []
        for worker in list(self.workers):
            for process in worker.family():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if is_fork_server(process):
                        found += process.children()
        return found

    def running_jobs(self) -> int:
        """How many jobs run, by the table."""
        query = select(func.count()).select_from(Job).where(Job.status == Status.RUNNING)
        return int(self.read(lambda session: session.scalar(query)))

    def logs(self) -> str:
        """What workers and API wrote, the end of each."""
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))


def is_fork_server(process: psutil.Process) -> bool:
    """Whether it is the fork server itself, and not a trainer, which has the same command line."""
    parent = process.parent()
    return _is_zygote(process) and parent is not None and not _is_zygote(parent)


def _is_zygote(process: psutil.Process) -> bool:
    return "worker.zygote" in process.cmdline()
