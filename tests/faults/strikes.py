"""What the soak does at random moments: the faults of the table, struck at whatever runs just then."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from core.jobs.status import Status
from core.queue import LOOK, QUEUES
from tests.faults.databases import PostgreSql
from tests.faults.jobs import WatchedJob
from tests.faults.parts import suspended
from tests.faults.rows import row_03_redis, row_05_database, row_08_drained
from tests.faults.rows.row_15_damaged import flip_last_byte
from tests.faults.stack import Stack

Act = Callable[[Stack, WatchedJob, random.Random], None]


@dataclass(frozen=True)
class Strike:
    """A way to make trouble for a job that runs, or for all. `weight`: how likely it is beside the others."""

    name: str
    act: Act
    weight: int


STRIKES: list[Strike] = []


def strike(name: str, *, weight: int = 4) -> Callable[[Act], Act]:
    """Register it."""

    def register(act: Act) -> Act:
        STRIKES.append(Strike(name, act, weight))
        return act

    return register


# At a job. Worker processes take seconds to come back, and processor time: they are killed less often.


@strike("kill -9 of the trainer", weight=8)
def kill_trainer(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    job.trainer().kill()


@strike("a segmentation fault", weight=4)
def crash_trainer(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    job.trainer().send_signal(signal.SIGSEGV)


@strike("kill -9 of the supervisor", weight=2)
def kill_supervisor(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    job.supervisor().kill()


@strike("kill -9 of the fork server", weight=2)
def kill_fork_server(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    job.fork_server().kill()


@strike("kill -9 of the worker", weight=2)
def kill_worker(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    job.worker().kill()


@strike("SIGTERM to the worker", weight=2)
def drain(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    job.worker().send_signal(signal.SIGTERM)


@strike("SIGTERM to every process of the worker", weight=2)
def drain_all(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    row_08_drained.terminate_all(job.worker())


@strike("SIGTERM, then kill -9 of the worker", weight=1)
def kill_while_draining(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    worker = job.worker()
    worker.send_signal(signal.SIGTERM)
    time.sleep(chance.uniform(0, 1))
    worker.kill()


@strike("the trainer is stopped for a while")
def stop_trainer(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    with suspended(job.trainer()):
        time.sleep(chance.uniform(0, 1.5 * stack.lease_seconds))


@strike("the supervisor is stopped for a while")
def stop_supervisor(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    with job.stopped(job.supervisor()):
        time.sleep(chance.uniform(0, 2 * stack.lease_seconds))


@strike("the whole worker is stopped for a while", weight=2)
def stop_worker(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    with job.stopped(*job.worker().family()):
        time.sleep(chance.uniform(0, 2 * stack.lease_seconds))


@strike("cancel", weight=6)
def cancel(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    job.expect("cancelled", "succeeded")
    job.cancel()


@strike("cancel, the trainer deaf to it", weight=2)
def cancel_deaf(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    job.expect("cancelled", "succeeded")
    with suspended(job.trainer()):
        job.cancel()
        job.until_ended()


@strike("pause and resume", weight=6)
def pause(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    if stack.request("POST", f"/v1/jobs/{job.id}/pause").status_code == 200:
        job.until(lambda: job.row().status is Status.PAUSED, what="for its pause")
        time.sleep(chance.uniform(0, 1))
        stack.request("POST", f"/v1/jobs/{job.id}/resume")


@strike("a damaged checkpoint")
def damage(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    trainer = job.trainer()
    newest = job.checkpoints()[0]
    job.damaged.add(newest.key)
    path = stack.storage.existing(newest.key)
    content = path.read_bytes()
    path.unlink()  # the trainer's own folder holds a link to the same file
    path.write_bytes(flip_last_byte(content))
    trainer.kill()


@strike("100 wake-ups")
def wake(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    for _ in range(100):
        stack.queue.send_task(LOOK, queue=QUEUES["auto"], ignore_result=True)


# At what all jobs stand on.


@strike("Redis: FLUSHALL")
def flush(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    stack.redis.flush()


@strike("Redis: killed, and started again")
def kill_redis(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    _for_a_while(row_03_redis.killed(stack, stack.redis.append_only_file), stack, chance)


@strike("Redis: restored from an old file")
def restore_redis(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    _for_a_while(row_03_redis.restored(stack, stack.redis.save_copy()), stack, chance)


@strike("Redis: stopped for a while", weight=2)
def stop_redis(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    _for_a_while(suspended(stack.redis.process), stack, chance)


@strike("an API process: kill -9")
def kill_api(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    stack.apis.kill(chance.randrange(len(stack.apis.addresses)))


@strike("an API process: SIGTERM")
def terminate_api(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    stack.apis.terminate(chance.randrange(len(stack.apis.addresses)))


@strike("all API processes away for a while", weight=2)
def kill_apis(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    stack.apis.kill()
    time.sleep(chance.uniform(0, 1.5 * stack.lease_seconds))


@strike("the database away for a while", weight=4)
def break_database(stack: Stack, job: WatchedJob, chance: random.Random) -> None:
    """PostgreSQL is killed, or hangs; SQLite is locked."""
    trouble: AbstractContextManager[None] = nullcontext()
    if isinstance(stack.server, PostgreSql):
        trouble = chance.choice((row_05_database.down, row_05_database.hung))(stack.server)
    else:
        trouble = row_05_database.locked(stack)
    _for_a_while(trouble, stack, chance)


def _for_a_while(trouble: AbstractContextManager[None], stack: Stack, chance: random.Random) -> None:
    """Less than a lease, or more."""
    with trouble:
        time.sleep(chance.uniform(0, 1.5 * stack.lease_seconds))
