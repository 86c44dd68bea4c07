"""Row 3: Redis forgets, dies, remembers an older day, or hangs, while jobs are idle, queued, running and finishing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tests.faults.moments import SHORT, trainer_at_checkpoint, trainer_near_its_end
from tests.faults.parts import repeating, suspended
from tests.faults.stack import Stack
from tests.faults.trials import Trial, fault

FLUSH_SECONDS = 0.05

Breaking = Callable[[Stack, Path], AbstractContextManager[None]]


@fault(row=3, name="Redis: FLUSHALL again and again", alone=True)
def redis_forgets(trial: Trial) -> None:
    disturb_at_each_moment(trial, forgetting)


@fault(row=3, name="Redis: kill -9", alone=True)
def redis_is_killed(trial: Trial) -> None:
    disturb_at_each_moment(trial, killed)


@fault(row=3, name="Redis: restored from an old append-only file", alone=True)
def redis_is_restored(trial: Trial) -> None:
    disturb_at_each_moment(trial, restored)


@fault(row=3, name="Redis: SIGSTOP for longer than a lease", alone=True)
def redis_hangs(trial: Trial) -> None:
    disturb_at_each_moment(trial, hanging)


def disturb_at_each_moment(trial: Trial, breaking: Breaking) -> None:
    """Once while all workers wait, and once with jobs that train, one that is about to finish, and one that waits."""
    stack = trial.stack
    with breaking(stack, stack.redis.save_copy()):
        trial.submit(trial.example("pca")).until_ended()
    with ExitStack() as broken:
        with ExitStack() as held:
            finishing = []
            for _ in stack.workers[1:]:
                finishing.append(trial.training_job(**SHORT))
                held.enter_context(suspended(trainer_near_its_end(finishing[-1])))
            held.enter_context(suspended(trainer_at_checkpoint(trial.training_job())))
            queued = trial.submit(trial.example("pca"))
            broken.enter_context(breaking(stack, stack.redis.save_copy()))
        for job in finishing:
            job.until_ended()
    queued.until_ended()
    for job in trial.jobs:
        job.expect("succeeded", attempts=1)
        trial.require(job.until_ended().fence == 1, f"{job.id} was claimed {job.row().fence} times")


@contextmanager
def forgetting(stack: Stack, copy: Path) -> Iterator[None]:
    """FLUSHALL, again and again."""
    with repeating(stack.redis.flush, every=FLUSH_SECONDS):
        yield


@contextmanager
def killed(stack: Stack, copy: Path) -> Iterator[None]:
    """It comes back with what its file holds."""
    stack.redis.kill()
    try:
        yield
    finally:
        stack.redis.start()


@contextmanager
def restored(stack: Stack, copy: Path) -> Iterator[None]:
    """It comes back with what its file held before."""
    stack.redis.kill()
    try:
        yield
    finally:
        stack.redis.restart_from(copy)


@contextmanager
def hanging(stack: Stack, copy: Path) -> Iterator[None]:
    """It accepts connections, and says nothing."""
    with suspended(stack.redis.process):
        ends_at = time.monotonic() + stack.lease_seconds + 1
        yield
        time.sleep(max(0.0, ends_at - time.monotonic()))
