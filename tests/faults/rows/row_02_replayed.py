"""Row 2: wake-ups that come a hundred times, and again when all is over."""

from __future__ import annotations

from core.queue import LOOK, QUEUES
from tests.faults.invariants import TWICE
from tests.faults.trials import Trial, fault


@fault(row=2, name="100 duplicate wake-ups, and 100 more at the end")
def repeat_wake_ups(trial: Trial) -> None:
    job = trial.training_job()
    wake(trial, 100)
    job.expect("succeeded", attempts=1)
    row = job.until_ended()
    wake(trial, 100)
    after = trial.training_job()  # it is claimed behind the last of them
    after.expect("succeeded", attempts=1)
    after.until_ended()
    trial.require((row.fence, job.row().fence) == (1, 1), f"{job.id} was claimed {job.row().fence} times", kind=TWICE)
    trial.require(after.row().fence == 1, f"{after.id} was claimed {after.row().fence} times", kind=TWICE)


def wake(trial: Trial, times: int) -> None:
    for _ in range(times):
        trial.stack.queue.send_task(LOOK, queue=QUEUES["auto"], ignore_result=True)
