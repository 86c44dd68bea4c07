"""Row 15: checkpoints that are not what was written. The one before is used, and it is said."""

from __future__ import annotations

from collections.abc import Callable

from core.jobs.models.results import Checkpoint
from tests.faults.jobs import WatchedJob
from tests.faults.parts import suspended
from tests.faults.trials import Trial, fault


@fault(row=15, name="the newest checkpoint is cut short")
def cut_newest(trial: Trial) -> None:
    job, (newest, before) = damage(trial, lambda content: content[: len(content) // 2], count=1)
    require_told(trial, job, newest, f"Goes on from the checkpoint of step {before.step}.")


@fault(row=15, name="the newest checkpoint has another hash")
def change_newest(trial: Trial) -> None:
    job, (newest, before) = damage(trial, flip_last_byte, count=1)
    require_told(trial, job, newest, f"Goes on from the checkpoint of step {before.step}.")


@fault(row=15, name="every checkpoint is damaged")
def damage_all(trial: Trial) -> None:
    job, (newest, _) = damage(trial, flip_last_byte, count=2)
    require_told(trial, job, newest, "No checkpoint is whole: training starts from the beginning.")


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def damage(
    trial: Trial, change: Callable[[bytes], bytes], *, count: int
) -> tuple[WatchedJob, tuple[Checkpoint, Checkpoint]]:
    """Damage the newest checkpoints of a job that trains, then have it start again."""
    job = trial.training_job()
    job.until_checkpoint(2)
    trainer = job.trainer()
    with suspended(trainer):
        job.until_renewed(2)  # what the trainer had said before is in the table then
        newest, before = job.checkpoints()
        for checkpoint in (newest, before)[:count]:
            path = trial.stack.storage.existing(checkpoint.key)
            content = path.read_bytes()
            path.unlink()  # the trainer's own folder holds a link to the same file
            path.write_bytes(change(content))
            job.damaged.add(checkpoint.key)
        trainer.kill()
    job.expect("succeeded", attempts=2)
    job.until_ended()
    return job, (newest, before)


def require_told(trial: Trial, job: WatchedJob, damaged: Checkpoint, text: str) -> None:
    messages = job.messages()
    is_told = any(message.startswith(f"The checkpoint of step {damaged.step} is damaged: ") for message in messages)
    trial.require(is_told, f"{job.id} does not say that the checkpoint of step {damaged.step} is damaged")
    trial.require(text in messages, f"{job.id} does not say '{text}': {messages}")
