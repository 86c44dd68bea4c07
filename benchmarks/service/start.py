"""From the POST to the first training step, with a warm worker, beside Ray Jobs and a script that is simply run.

Ours counts until a watcher has the event of the first step in its hands; the others, until their script has made it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.service import servers
from benchmarks.service.usage import spent

SCRIPT = Path(__file__).with_name("first_step.py")
COLUMNS = 64
OUR_STARTS, RAY_STARTS, BARE_STARTS = 15, 5, 3
PATIENCE = 60.0


def write_table(folder: Path, rows: int) -> Path:
    """A table of numbers [rows, 64] in float32."""
    path = folder / "table.npy"
    np.save(path, np.random.default_rng(0).normal(size=(rows, COLUMNS)).astype(np.float32))
    return path


def measure_ours(rows: int) -> Reading:
    """Submit jobs one after the other to `weightworks up`."""
    from benchmarks.service.watched import SPEC

    with servers.weightworks_up() as (client, up):
        dataset = client.files.upload(write_table(client_folder(), rows)).id
        seconds = []

        def start() -> None:
            sent_at = time.monotonic()
            job = client.jobs.create({**SPEC, "dataset": dataset, "steps": 2})
            next(event for event in client.jobs.events(job.id) if event.type == "metrics")
            seconds.append(time.monotonic() - sent_at)
            client.jobs.wait(job.id)

        start()  # the first also warms what is there once
        seconds.clear()
        used = spent(up.pid, lambda: [start() for _ in range(OUR_STARTS)])
    return reading_of(seconds, used / OUR_STARTS)


def client_folder() -> Path:
    """A folder for what a client has, gone with this process."""
    folder = tempfile.TemporaryDirectory(prefix="ww-bench-")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def measure_ray(rows: int) -> Reading:
    """Submit the script to Ray's job server, which is up and idle."""
    folder = client_folder()
    table, seconds, posts = write_table(folder, rows), [], []
    with servers.ray(folder) as server, server.client() as http:

        def start(number: int) -> None:
            told = folder / f"told-{number}"
            sent_at = time.time()
            body = {"entrypoint": f"{sys.executable} {SCRIPT} {table} {told}"}
            job = http.post("/api/jobs/", json=body).raise_for_status().json()["submission_id"]
            posts.append(time.time() - sent_at)
            wait_for(lambda: ray_status(http, job) in ("SUCCEEDED", "FAILED"))
            seconds.append(float(told.read_text().split()[0]) - sent_at)

        start(0)
        seconds.clear()
        used = spent(server.child.pid, lambda: [start(number) for number in range(1, RAY_STARTS + 1)])
    return reading_of(seconds, used / RAY_STARTS, post_ms=1000 * statistics.median(posts))


def ray_status(http: httpx.Client, job: str) -> str:
    """What Ray says of a job."""
    return str(http.get(f"/api/jobs/{job}").json()["status"])


def measure_bare(rows: int) -> Reading:
    """Run the script."""
    folder = client_folder()
    table, told, seconds = write_table(folder, rows), folder / "told", []
    for _ in range(BARE_STARTS + 1):  # the first reads the files of torch into memory
        sent_at = time.time()
        subprocess.run([sys.executable, str(SCRIPT), str(table), str(told)], check=True)
        seconds.append(float(told.read_text().split()[0]) - sent_at)
    return reading_of(seconds[1:], None)


def reading_of(seconds: list[float], cpu_seconds: float | None, **quality: float) -> Reading:
    """The median, and how far the others lie from it."""
    least_and_most = {"least_s": min(seconds), "most_s": max(seconds), "starts": len(seconds)}
    return Reading(statistics.median(seconds), {**least_and_most, **quality}, cpu_seconds=cpu_seconds)


def wait_for(is_done: Callable[[], bool]) -> None:
    """Look every 50 ms; raises TimeoutError."""
    ends_at = time.monotonic() + PATIENCE
    while not is_done():
        if time.monotonic() > ends_at:
            raise TimeoutError
        time.sleep(0.05)


BENCHMARKS = [
    Benchmark(
        name="start",
        what="submit to first training step, warm worker, median; ours until a watcher has the event",
        unit="s",
        more_is_better=False,
        goal=Goal(
            "at least 20x faster than Ray Jobs, and faster than the bare script",
            ratios={"Ray Jobs": 1 / 20, "python script.py": 1.0},
        ),
        ours=Side("Weightworks", measure_ours, packages=("torch", "fastapi", "celery", "redis")),
        peers=(
            Side("Ray Jobs", measure_ray, packages=("ray", "torch"), is_peer=True),
            Side("python script.py", measure_bare, packages=("torch",), is_peer=True),
        ),
        size="rows of the table",
        sizes=(20_000,),
        full_sizes=(1_000, 20_000, 200_000),
    )
]
