"""Row 8: a worker that is told to leave. No attempt is used up, and another worker goes on."""

from __future__ import annotations

import contextlib
import signal

import psutil

from tests.faults.jobs import WatchedJob
from tests.faults.parts import Worker, suspended
from tests.faults.trials import Trial, fault


@fault(row=8, name="SIGTERM to the worker")
def drain(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    worker = job.worker()
    worker.send_signal(signal.SIGTERM)
    trial.require(worker.wait() == 0, f"{worker.name} ended with status {worker.process.returncode}")
    require_released(trial, job)


@fault(row=8, name="a second SIGTERM")
def drain_twice(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    worker = job.worker()
    with suspended(job.trainer()):
        worker.send_signal(signal.SIGTERM)
        job.until(lambda: job.row().attempt == 0, what="for the attempt to be given back")
        worker.send_signal(signal.SIGTERM)
    trial.require(worker.wait() == 0, f"{worker.name} ended with status {worker.process.returncode}")
    require_released(trial, job)


@fault(row=8, name="SIGKILL while draining")
def kill_while_draining(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    worker = job.worker()
    with suspended(job.trainer()):
        worker.send_signal(signal.SIGTERM)
        job.until(lambda: job.row().attempt == 0, what="for the attempt to be given back")
        worker.kill()
    job.expect("succeeded", attempts=1)


@fault(row=8, name="SIGTERM to every process of the worker, as systemd sends it")
def drain_all(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    worker = job.worker()
    terminate_all(worker)
    worker.wait()
    require_released(trial, job)


@fault(row=8, name="SIGQUIT to the worker, as Ctrl-C twice sends it")
def quit_at_once(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    worker = job.worker()
    worker.send_signal(signal.SIGQUIT)
    worker.wait()
    require_released(trial, job)


def terminate_all(worker: Worker) -> None:
    """SIGTERM to all its processes."""
    for process in worker.family():
        with contextlib.suppress(psutil.NoSuchProcess):  # one told before it may have ended it
            process.terminate()


def require_released(trial: Trial, job: WatchedJob) -> None:
    job.expect("succeeded", attempts=1)
    job.until_ended()
    outcomes = [attempt.outcome for attempt in job.attempts()]
    trial.require(outcomes == ["released", "succeeded"], f"{job.id}: its attempts were {outcomes}")
