"""Moments in a job's life that a fault wants to meet."""

from __future__ import annotations

import psutil

from tests.faults.jobs import WatchedJob

SHORT = {"steps": 100}  # a training job of which little is left when it comes near its end
NEAR_END = 40


def trainer_at_checkpoint(job: WatchedJob, *, step: int = 1) -> psutil.Process:
    """The job's trainer, once it has written a checkpoint of this step or a later one."""
    trainer = job.trainer()  # first, since finding a process takes longer than many a step
    job.until(lambda: (rows := job.checkpoints()) and rows[0].step >= step, what=f"for a checkpoint of step {step}")
    return trainer


def trainer_near_its_end(job: WatchedJob) -> psutil.Process:
    """The trainer of a short job that has made all but a few of its steps."""
    return trainer_at_checkpoint(job, step=NEAR_END)
