"""Whose turn it is, and that each job is claimed once."""

from __future__ import annotations

import threading

from core.jobs.database import Database
from tests.core.jobs.lines import claim, submit


def test_claims_by_priority_then_age(database: Database) -> None:
    first, second, urgent = submit(database), submit(database), submit(database, priority=5)
    assert [claim(database).job_id for _ in range(3)] == [urgent, first, second]
    assert claim(database) is None


def test_a_worker_claims_only_what_its_device_can_do(database: Database) -> None:
    submit(database, device="cuda")
    assert claim(database) is None
    assert claim(database, devices=("cuda", "auto")) is not None


def test_many_claimers_get_each_job_once(database: Database) -> None:
    jobs = {submit(database) for _ in range(12)}
    claimed: list[str] = []

    def take() -> None:
        while (held := claim(database, owner=threading.current_thread().name)) is not None:
            claimed.append(held.job_id)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # On PostgreSQL a claimer that meets only locked rows leaves; whoever holds them, or the next wake-up, goes on.
    take()
    assert sorted(claimed) == sorted(jobs)
