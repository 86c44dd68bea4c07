"""Row 5: the database is down, hangs, cuts its connections, or is locked, for less and for more than a lease."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager

import psycopg

from tests.faults.databases import PostgreSql, Sqlite
from tests.faults.moments import SHORT, trainer_at_checkpoint, trainer_near_its_end
from tests.faults.parts import suspended
from tests.faults.stack import Stack
from tests.faults.trials import Trial, fault

TERMINATE_SECONDS = 0.2
TERMINATIONS = 25


@fault(row=5, name="PostgreSQL down for less than a lease", alone=True, databases=["postgresql"])
def down_for_a_moment(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    server = postgresql(trial.stack)
    server.kill()
    server.start()
    job.expect("succeeded", attempts=1)


@fault(row=5, name="PostgreSQL down for more than a lease", alone=True, databases=["postgresql"])
def down_for_long(trial: Trial) -> None:
    train_and_finish_during(trial, down(postgresql(trial.stack)))


@fault(row=5, name="PostgreSQL hangs for more than a lease", alone=True, databases=["postgresql"])
def hanging(trial: Trial) -> None:
    train_and_finish_during(trial, hung(postgresql(trial.stack)))


@fault(row=5, name="connections terminated again and again", alone=True, databases=["postgresql"])
def terminated(trial: Trial) -> None:
    spec = trial.example("pca")
    job = trial.training_job()
    with psycopg.connect(trial.stack.server.url, autocommit=True) as connection:
        for _ in range(TERMINATIONS):
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            time.sleep(TERMINATE_SECONDS)
            if len(trial.jobs) == 1:
                trial.submit(spec)
    for job in trial.jobs:
        job.expect("succeeded")


@fault(row=5, name="SQLite locked for less than a lease", alone=True, databases=["sqlite"])
def locked_for_a_moment(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    with locked(trial.stack):
        time.sleep(trial.stack.lease_seconds / 3)
    job.expect("succeeded", attempts=1)


@fault(row=5, name="SQLite locked for more than a lease", alone=True, databases=["sqlite"])
def locked_for_long(trial: Trial) -> None:
    train_and_finish_during(trial, locked(trial.stack))


def train_and_finish_during(trial: Trial, trouble: AbstractContextManager[None]) -> None:
    """One trainer must stop itself; another comes to its end, and its supervisor must wait until that can be said.

    A third job is there to be claimed, and whoever claims it has it, however long that takes.
    """
    spec = trial.example("pca")
    finishing = trial.training_job(**SHORT)
    with ExitStack() as broken:
        with ExitStack() as held:
            with suspended(trainer_near_its_end(finishing)):
                training = trial.training_job()
                held.enter_context(suspended(trainer_at_checkpoint(training)))
                busy = (finishing.worker(), training.worker())
                with trial.stack.stopped(*(worker for worker in trial.stack.workers if worker not in busy)):
                    waiting = trial.submit(spec)
                    broken.enter_context(trouble)
            time.sleep(trial.stack.lease_seconds)  # the fault itself
        time.sleep(1)
    for job in trial.jobs:
        job.expect("succeeded", attempts=1)
    trial.require(training.until_ended().fence > 1, f"{training.id} was not disturbed")
    fence = waiting.until_ended().fence
    trial.require(fence == 1, f"{waiting.id} was claimed {fence} times")


@contextmanager
def down(server: PostgreSql) -> Iterator[None]:
    """`kill -9`; it recovers when it is started again."""
    server.kill()
    yield
    server.start()


@contextmanager
def hung(server: PostgreSql) -> Iterator[None]:
    """SIGSTOP to all its processes."""
    server.suspend()
    yield
    server.resume()


def postgresql(stack: Stack) -> PostgreSql:
    assert isinstance(stack.server, PostgreSql)
    return stack.server


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """Another process has it for itself: nobody can write."""
    assert isinstance(stack.server, Sqlite)
    with closing(sqlite3.connect(stack.server.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout = 30000")
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
