"""Row 4: API processes die at the worst moments, and are away for longer than a lease."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from sqlalchemy import select

from core.jobs.ids import new_id
from core.jobs.models.jobs import Job
from tests.faults.parts import repeating, suspended
from tests.faults.stack import Stack
from tests.faults.trials import Trial, fault

SUBMISSIONS = 8


@fault(row=4, name="API killed between COMMIT and the wake-up", alone=True)
def kill_before_wake_up(trial: Trial) -> None:
    """A Redis that hangs keeps the wake-up from leaving; the API dies with it."""
    spec = trial.example("pca")
    with trial.stack.stopped(*trial.stack.workers), suspended(trial.stack.redis.process):
        job = trial.submit(spec)
        trial.stack.apis.kill()
    job.expect("succeeded", attempts=1)
    trial.stack.apis.start()
    job.until_ended()


@fault(row=4, name="API processes killed again and again while clients submit", alone=True)
def kill_while_submitting(trial: Trial) -> None:
    """A client that got no answer asks again under its Idempotency-Key: each submission is one job."""
    token = new_id("token")
    spec = {**trial.example("pca"), "metadata": {"token": token}}
    with killing(trial.stack), ThreadPoolExecutor(SUBMISSIONS) as clients:
        jobs = list(clients.map(lambda _: trial.submit(spec), range(SUBMISSIONS)))
    for job in jobs:
        job.expect("succeeded", attempts=1)
    tags = trial.stack.read(lambda session: session.scalars(select(Job.tags)).all())
    made = sum(found.get("token") == token for found in tags)
    trial.require(made == SUBMISSIONS, f"{SUBMISSIONS} submissions made {made} jobs")


@contextmanager
def killing(stack: Stack) -> Iterator[None]:
    """Kill one API process after the other, and start it again."""

    def kill() -> None:
        for index in range(len(stack.apis.addresses)):
            stack.apis.kill(index)
            stack.apis.start(index)

    with repeating(kill):
        yield


@fault(row=4, name="all API processes down for longer than a lease", alone=True)
def all_apis_down(trial: Trial) -> None:
    job = trial.training_job()
    job.until_training()
    trial.stack.apis.kill()
    down_until = time.monotonic() + trial.stack.lease_seconds + 1
    job.until_ended()
    time.sleep(max(0.0, down_until - time.monotonic()))
    job.expect("succeeded", attempts=1)
    trial.stack.apis.start()
    trial.require(job.row().fence == 1, f"{job.id} was claimed {job.row().fence} times")
