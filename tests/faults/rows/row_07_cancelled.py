"""Row 7: cancels at every moment. The job is over within 15 seconds; what it learned can be downloaded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from core.training.checkpoint import read_checkpoint
from tests.faults.jobs import WatchedJob
from tests.faults.parts import is_alive, suspended, until
from tests.faults.trials import Trial, fault

MOST_SECONDS = 15.0


@fault(row=7, name="cancel while queued")
def cancel_queued(trial: Trial) -> None:
    job = trial.submit(trial.example("pca", device="cuda"))  # no worker here has one: it waits
    cancel_and_wait(trial, job)
    job.expect("cancelled", attempts=0)
    trial.require(job.row().fence == 0, f"{job.id} ran")


@fault(row=7, name="cancel at the claim")
def cancel_at_claim(trial: Trial) -> None:
    for milliseconds in (0, 20, 50, 100, 200):
        job = trial.endless_job()
        job.until_claimed()
        time.sleep(milliseconds / 1000)  # a moment of the fault's choice
        job.expect("cancelled")
        cancel_and_wait(trial, job)


@fault(row=7, name="cancel in mid-step, the trainer deaf to SIGTERM")
def cancel_deaf(trial: Trial) -> None:
    job = trial.endless_job()
    job.until_checkpoint()
    job.expect("cancelled")
    with suspended(job.trainer()):
        cancel_and_wait(trial, job)
    require_checkpoint(trial, job)


@fault(row=7, name="cancel while a checkpoint is written")
def cancel_while_checkpointing(trial: Trial) -> None:
    job = trial.endless_job(checkpoint_every=1)
    job.until_checkpoint()
    job.expect("cancelled")
    cancel_and_wait(trial, job)
    trial.require(job.weights(), f"{job.id} has no weights")
    require_checkpoint(trial, job)


@fault(row=7, name="cancel with half a checkpoint, the trainer deaf to SIGTERM")
def cancel_half_a_checkpoint(trial: Trial) -> None:
    job = trial.endless_job(checkpoint_every=1)
    job.until_checkpoint()
    job.expect("cancelled")
    with suspended_in_mid_checkpoint(job):
        cancel_and_wait(trial, job)
    require_checkpoint(trial, job)


@fault(row=7, name="cancel at the final commit")
def cancel_at_the_end(trial: Trial) -> None:
    job = trial.training_job()
    job.until_step(225)
    trainer = job.trainer()
    with job.stopped(job.supervisor()):
        until(lambda: not is_alive(trainer), what="for the trainer to finish")
        trial.require(job.cancel() == 200, f"{job.id}: the cancel was refused")
        asked_at = time.monotonic()
    job.until_ended()
    require_in_time(trial, job, asked_at)
    job.expect("succeeded", "cancelled", attempts=1)
    trial.require(job.weights(), f"{job.id} has no weights")
    trial.require(job.cancel() == 409, f"{job.id}: it was over, and could be cancelled")


@fault(row=7, name="cancel, and kill -9 of the supervisor before it hears of it")
def cancel_and_kill_supervisor(trial: Trial) -> None:
    job = trial.endless_job()
    job.until_checkpoint()
    job.expect("cancelled")
    supervisor = job.supervisor()
    job.until(lambda: job.is_ahead_of_sql(), what="for an event that only Redis has")
    supervisor.kill()
    cancel_and_wait(trial, job)
    require_checkpoint(trial, job)


@contextlib.contextmanager
def suspended_in_mid_checkpoint(job: WatchedJob) -> Iterator[None]:
    """The trainer stopped when part of a checkpoint is on the disk."""
    trainer = job.trainer()
    folder = job.stack.storage.root / "runs" / job.id / str(job.row().fence) / "checkpoints"
    while True:
        trainer.suspend()
        if any(folder.glob("*.partial")):
            break
        trainer.resume()
    with suspended(trainer):
        yield


def cancel_and_wait(trial: Trial, job: WatchedJob) -> None:
    asked_at = time.monotonic()
    trial.require(job.cancel() == 200, f"{job.id}: the cancel was refused")
    job.until_ended()
    require_in_time(trial, job, asked_at)


def require_in_time(trial: Trial, job: WatchedJob, asked_at: float) -> None:
    took = time.monotonic() - asked_at
    trial.require(took < MOST_SECONDS, f"{job.id} was over {took:.1f} seconds after the cancel")


def require_checkpoint(trial: Trial, job: WatchedJob) -> None:
    """What is downloaded as the newest checkpoint can be gone on from."""
    content = job.newest_checkpoint()
    path = trial.stack.folder / f"{job.id}.safetensors"
    path.write_bytes(content or b"")
    trial.require(content and read_checkpoint(path)["step"] > 0, f"{job.id} has no checkpoint")
