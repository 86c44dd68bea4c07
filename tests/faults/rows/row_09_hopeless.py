"""Row 9: a trainer that dies at each try. The job fails after its last attempt, and says of what."""

from __future__ import annotations

import signal

from tests.faults.trials import Trial, fault


@fault(row=9, name="a segmentation fault at each try")
def segfault(trial: Trial) -> None:
    die_at_each_try(trial, signal.SIGSEGV, "signal 11 (SIGSEGV)")


@fault(row=9, name="killed for want of memory at each try")
def out_of_memory(trial: Trial) -> None:
    die_at_each_try(trial, signal.SIGKILL, "it may have run out of memory")


def die_at_each_try(trial: Trial, number: int, reason: str) -> None:
    job = trial.endless_job()
    for attempt in (1, 2, 3):
        job.until(lambda attempt=attempt: job.row().owner and job.row().attempt == attempt, what="for an attempt")
        job.trainer().send_signal(number)
        job.expect("failed", attempts=3, code="trainer_died")
        job.until_over(attempt)
    error = job.until_ended().error or {}
    trial.require(reason in error.get("message", ""), f"{job.id} does not say why: {error}")
