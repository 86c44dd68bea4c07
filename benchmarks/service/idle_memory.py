"""Memory of the whole stack while it has nothing to do, pages that several processes share counted once (PSS)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.service import servers
from benchmarks.service.start import client_folder, ray_status, wait_for
from benchmarks.service.usage import proportional_bytes

SETTLE_SECONDS = 3.0
AT_ONCE = 4


def measure_ours(jobs: int) -> Reading:
    """Redis, the API, a worker with its warm trainer, and what keeps them up; after so many jobs."""
    with servers.weightworks_up() as (client, up):
        table = client_folder() / "table.csv"
        table.write_text("a,b,c\n" + "1,2,3\n4,5,7\n2,9,1\n" * 10)
        dataset = client.files.upload(table).id
        for _ in range(jobs):
            client.jobs.wait(client.jobs.create({"method": "pca", "n_components": 2, "dataset": dataset}).id)
        return settled(up.pid)


def measure_ray(jobs: int) -> Reading:
    """`ray start --head` with its dashboard, after so many jobs."""
    with servers.ray(client_folder()) as server, server.client() as http:

        def run(_: int) -> None:
            job = http.post("/api/jobs/", json={"entrypoint": "true"}).raise_for_status().json()["submission_id"]
            wait_for(lambda: ray_status(http, job) in ("SUCCEEDED", "FAILED"))

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(run, range(jobs)))
        return settled(server.child.pid)


def measure_mlflow(jobs: int) -> Reading:
    """`mlflow server --workers 1` on SQLite, after so many runs."""
    folder = client_folder()
    with servers.mlflow(folder, f"sqlite:///{folder}/database.sqlite3") as server, server.client() as http:
        for _ in range(jobs):
            http.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).raise_for_status()
        return settled(server.child.pid)


def settled(pid: int) -> Reading:
    """MiB of the process and all that it started, a while after the last work."""
    time.sleep(SETTLE_SECONDS)
    used = proportional_bytes(pid)
    return Reading(used / 2**20, {"processes": len(servers.family(pid))}, peak_bytes=used)


BENCHMARKS = [
    Benchmark(
        name="idle-memory",
        what="memory of an idle stack (ours: Redis, API, worker, warm trainer), shared pages once",
        unit="MiB",
        more_is_better=False,
        goal=Goal("less than either", ratio=1.0),
        ours=Side("Weightworks", measure_ours, packages=("torch", "fastapi", "celery", "redis")),
        peers=(
            Side("ray start --head", measure_ray, packages=("ray",), is_peer=True),
            Side("MLflow server", measure_mlflow, packages=("mlflow",), is_peer=True),
        ),
        size="jobs before",
        sizes=(0, 10),
        full_sizes=(0, 10, 100),
    )
]
