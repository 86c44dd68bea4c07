"""Row 10: workers whose clocks differ from everyone else's, and jump; a database whose clock jumps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg

from tests.faults.moments import trainer_at_checkpoint
from tests.faults.parts import suspended, until
from tests.faults.stack import Stack
from tests.faults.trials import Trial, fault

HOUR = 3600
RENEWALS = 4


class Clock:
    """A worker's clock on the wall, off by so many seconds; what is left of a time span it tells rightly."""

    def __init__(self, path: Path, *, seconds: int) -> None:
        self._path = path
        self.set(seconds)
        package = find_spec("libfaketime")
        assert package is not None
        assert package.submodule_search_locations is not None
        library = next(Path(package.submodule_search_locations[0]).rglob("libfaketime.so.1"))
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, seconds: int) -> None:
        """Jump."""
        partial = self._path.with_suffix(".partial")
        partial.write_text(f"{seconds:+d}\n")
        partial.replace(self._path)


@fault(row=10, name="workers' clocks two hours apart; one is killed, one jumps", alone=True)
def clocks_differ(trial: Trial) -> None:
    stack = trial.stack
    trial.training_job().until_ended()  # its weights are known from here on
    clocks = [Clock(stack.folder / f"clock-{hours:+d}", seconds=hours * HOUR) for hours in (1, -1)]
    others = list(stack.workers)
    ahead, behind = (stack.start_worker(**clock.environment) for clock in clocks)
    until(lambda: ahead.is_warm and behind.is_warm, what="for workers with clocks of their own")
    with ExitStack() as ending, ExitStack() as held, stack.stopped(*others):
        ending.callback(behind.close)
        ending.callback(ahead.close)
        jobs = []
        for _ in clocks:
            jobs.append(trial.training_job())
            jobs[-1].is_by_one_clock = stack.kind == "postgresql"  # SQLite's is that of each process
            held.enter_context(suspended(trainer_at_checkpoint(jobs[-1])))
        killed, jumped = sorted(jobs, key=lambda job: job.worker() is behind)
        ahead.kill()
        for seconds in (HOUR, -HOUR):
            clocks[1].set(seconds)
            jumped.until_renewed(RENEWALS)
        held.close()
        killed.expect("succeeded", attempts=2)
        jumped.expect("succeeded", attempts=1)
        for job in jobs:
            job.until_ended()
    trial.require(jumped.row().fence == 1, f"{jumped.id} was claimed {jumped.row().fence} times")


@fault(row=10, name="the database's clock jumps an hour forward, and back", alone=True, databases=["postgresql"])
def database_jumps(trial: Trial) -> None:
    with ExitStack() as held, own_clock(trial.stack) as connection:
        jobs = []
        for _ in trial.stack.workers:
            jobs.append(trial.training_job())
            held.enter_context(suspended(trainer_at_checkpoint(jobs[-1])))
        connection.execute("UPDATE clock_jump SET seconds = 3600")
        jobs[0].until_renewed(RENEWALS)
        trial.submit(trial.example("pca")).is_by_one_clock = False
        connection.execute("UPDATE clock_jump SET seconds = 0")
        jobs[0].until_renewed(RENEWALS)
        held.close()
        for job in trial.jobs:
            job.expect("succeeded", attempts=1)
            trial.require(job.until_ended().fence == 1, f"{job.id} was claimed {job.row().fence} times")


@contextmanager
def own_clock(stack: Stack) -> Iterator[psycopg.Connection]:
    """Put a clock that can jump before PostgreSQL's own: a function of the same name, in a schema that comes first."""
    with psycopg.connect(stack.server.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA clocks")
        connection.execute("CREATE TABLE public.clock_jump AS SELECT 0.0::double precision AS seconds")
        connection.execute(
            "CREATE FUNCTION clocks.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
            "'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT seconds FROM public.clock_jump))'"
        )
        set_path(connection, "clocks, pg_catalog, public")
        yield connection
        set_path(connection, "public")
        connection.execute("DROP SCHEMA clocks CASCADE")
        connection.execute("DROP TABLE public.clock_jump")


def set_path(connection: psycopg.Connection, path: str) -> None:
    """For all connections: those that there are begin anew."""
    (name,) = connection.execute("SELECT current_database()").fetchone()
    connection.execute(f'ALTER DATABASE "{name}" SET search_path = {path}')
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
