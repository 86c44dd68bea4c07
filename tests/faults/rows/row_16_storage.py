"""Row 16, and the disks of row 5: storage that is full or read-only, and a database whose disk is full."""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, closing

from tests.faults import invariants
from tests.faults.databases import Sqlite
from tests.faults.moments import SHORT, trainer_at_checkpoint, trainer_near_its_end
from tests.faults.parts import is_alive, suspended, until
from tests.faults.stack import Stack
from tests.faults.trials import Trial, fault


@fault(row=5, name="storage full: the job says so, and goes on when it is retried", alone=True)
def storage_full(trial: Trial) -> None:
    disk = trial.disk(trial.stack.disks.storage)
    job = trial.training_job()
    with ExitStack() as broken:
        with suspended(trainer_at_checkpoint(job)):
            broken.enter_context(disk.full())
        job.expect("failed", attempts=3, code="storage_full")
        trial.violations += invariants.check_job(job)
        refuse_upload(trial)
    kept = job.newest_checkpoint()
    trial.require(kept is not None, f"{job.id} has no checkpoint left")
    job.retry()
    job.expect("succeeded", attempts=1)
    job.until_ended()
    trial.require("Goes on from the checkpoint of step" in str(job.messages()), f"{job.id} began anew")


def refuse_upload(trial: Trial) -> None:
    """A file that storage cannot take is refused in the envelope, and nothing of it is kept."""
    stack = trial.stack
    address = f"{stack.apis.addresses[0]}/v1/files"
    answer = stack.http.post(address, files={"file": ("table.csv", b"a,b\n" + b"1,2\n" * 2**20)}, timeout=30)
    trial.require(answer.status_code == 507, f"an upload to a full disk: {answer.status_code} {answer.text[:200]}")
    trial.require(answer.json()["error"]["code"] == "storage_full", f"an upload to a full disk: {answer.text[:200]}")
    until(lambda: not list(stack.storage.incoming.iterdir()), what="for what came of a refused upload to go")


@fault(row=16, name="storage read-only in mid-training, for a while", alone=True)
def read_only_for_a_while(trial: Trial) -> None:
    disk = trial.disk(trial.stack.disks.storage)
    job = trial.training_job()
    trainer_at_checkpoint(job)
    with disk.read_only():
        job.until(lambda: "storage fails now" in str(job.messages()), what="for a refusal")
    job.expect("succeeded")


@fault(row=16, name="storage read-only while artifacts are published, for a while", alone=True)
def read_only_at_the_end(trial: Trial) -> None:
    disk = trial.disk(trial.stack.disks.storage)
    job = trial.training_job(**SHORT)
    with ExitStack() as broken:
        supervisor = job.supervisor()
        trainer = trainer_near_its_end(job)
        with suspended(supervisor):
            until(lambda: not is_alive(trainer), what="for the trainer's end")
            broken.enter_context(disk.read_only())
        time.sleep(1)  # the fault itself
        trial.require(job.artifacts() == [], "artifacts are published that storage did not take")
    job.expect("succeeded", attempts=1)


@fault(row=16, name="storage read-only for good", alone=True)
def read_only_for_good(trial: Trial) -> None:
    disk = trial.disk(trial.stack.disks.storage)
    job = trial.training_job()
    trainer_at_checkpoint(job)
    with disk.read_only():
        job.until_ended()
    job.expect("failed", attempts=3, code="storage_unavailable")
    trial.require(job.artifacts() == [], "artifacts are published that storage did not take")


@fault(row=5, name="the database's disk full for longer than a lease", alone=True)
def database_full(trial: Trial) -> None:
    disk = trial.disk(trial.stack.disks.database)
    job = trial.training_job()
    with ExitStack() as broken:
        with suspended(trainer_at_checkpoint(job)):
            give_back_room(trial.stack)
            broken.enter_context(disk.full())
        time.sleep(trial.stack.lease_seconds + 1)  # the fault itself
    job.expect("succeeded")


def give_back_room(stack: Stack) -> None:
    """SQLite writes again over what its log once had; without this it would not notice for long."""
    if isinstance(stack.server, Sqlite):
        with closing(sqlite3.connect(stack.server.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
