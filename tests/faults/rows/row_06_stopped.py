"""Row 6: processes that are stopped for longer than a lease, and continued when the job is someone else's."""

from __future__ import annotations

import time

from tests.faults.invariants import TWICE
from tests.faults.jobs import WatchedJob
from tests.faults.parts import is_alive, suspended, until
from tests.faults.trials import Trial, fault


@fault(row=6, name="the supervisor is stopped beyond its lease", takes_worker=True)
def stop_supervisor(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    trainer = job.trainer()
    with job.stopped(job.supervisor()):
        until(lambda: not is_alive(trainer), what="for the trainer to stop itself")
        job.until_ended()
        told = len(job.events())
    until_lease_is_lost(job)
    trial.require(len(job.events()) == told, f"{job.id}: something was written late", kind=TWICE)
    job.expect("succeeded", attempts=2)


@fault(row=6, name="the supervisor is stopped with finished weights in its hands", takes_worker=True)
def stop_supervisor_at_the_end(trial: Trial) -> None:
    job = trial.training_job()
    job.until_step(150)
    trainer, fence = job.trainer(), job.row().fence
    with job.stopped(job.supervisor()):
        until(lambda: not is_alive(trainer), what="for the trainer to finish")
        job.until_ended()
        published = [artifact.key for artifact in job.artifacts()]
    until_lease_is_lost(job)
    late = trial.stack.storage.path(f"jobs/{job.id}/{fence}/artifacts")
    until(lambda: not any(path.is_file() for path in late.rglob("*")), what="for late artifacts to go")
    trial.require([artifact.key for artifact in job.artifacts()] == published, f"{job.id}: late artifacts", kind=TWICE)
    job.expect("succeeded", attempts=2)


@fault(row=6, name="the whole worker is stopped, as a machine is that sleeps", takes_worker=True)
def stop_worker(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    trainer = job.trainer()
    with job.stopped(*job.worker().family()):
        job.until_ended()
        told = len(job.events())
    until(lambda: not is_alive(trainer), what="for the late trainer to stop itself")
    until_lease_is_lost(job)
    trial.require(len(job.events()) == told, f"{job.id}: something was written late", kind=TWICE)
    job.expect("succeeded", attempts=2)


@fault(
    row=6, name="the supervisor is stopped in the midst of a transaction", takes_worker=True, databases=["postgresql"]
)
def stop_supervisor_in_transaction(trial: Trial) -> None:
    """Nobody else can write the job's row until the database itself ends that transaction."""
    job = trial.training_job()
    job.until_checkpoint()
    with job.stopped(job.supervisor(), holding_lock=True):
        job.until_ended()
    job.expect("succeeded", attempts=2)


@fault(row=6, name="the trainer is stopped for longer than a lease")
def stop_trainer(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    with suspended(job.trainer()):
        time.sleep(1.5 * trial.stack.lease_seconds)  # the fault itself
    job.expect("succeeded", attempts=1)


@fault(row=6, name="the trainer is stopped for good")
def stop_trainer_for_good(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    with suspended(job.trainer()):
        job.until(lambda: job.row().fence > 1, what="for another attempt")
    job.expect("succeeded", attempts=2)
    job.until_ended()
    trial.require(any("no sign of life" in message for message in job.messages()), f"{job.id} does not say why")


def until_lease_is_lost(job: WatchedJob) -> None:
    """Wait until the one that was stopped has noticed."""
    until(lambda: f"job {job.id}: the lease of fence 1 was lost" in job.stack.logs(), what="for the lost lease")
