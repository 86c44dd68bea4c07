"""Row 1: `kill -9` of each process that a job has. There are no ranks and no data loader's workers to kill."""

from __future__ import annotations

from tests.faults.trials import Trial, fault


@fault(row=1, name="kill -9 of the worker's main process")
def kill_worker(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    job.worker().kill()
    job.expect("succeeded", attempts=2)


@fault(row=1, name="kill -9 of the supervisor")
def kill_supervisor(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    job.supervisor().kill()
    job.expect("succeeded", attempts=2)


@fault(row=1, name="kill -9 of the trainer")
def kill_trainer(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    job.trainer().kill()
    job.expect("succeeded", attempts=2)
    job.until_ended()
    trial.require(
        any(message.startswith("Goes on from the checkpoint of step ") for message in job.messages()),
        f"{job.id} did not go on from a checkpoint",
    )


@fault(row=1, name="kill -9 of the fork server")
def kill_fork_server(trial: Trial) -> None:
    job = trial.training_job()
    job.until_checkpoint()
    job.fork_server().kill()
    job.expect("succeeded", attempts=2)
