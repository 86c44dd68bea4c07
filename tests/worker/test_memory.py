"""Trainers that want more memory than they may have: told so, tried again, and the machine is not the worse for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.jobs.status import Status
from tests.worker.conftest import Service
from worker.memory import allowance, taken_bytes

GIB = 2**30


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("memory"), redis_url)
    service.environment["WEIGHTWORKS_TRAINER_MEMORY_BYTES"] = str(GIB)
    service.start_worker()
    yield service
    service.close()


def test_a_network_that_does_not_fit_fails_the_job_with_that_reason(service: Service) -> None:
    spec = service.example("autoencoder", architecture="dense", hidden_sizes=[16_384] * 4, device="cpu")
    job = service.until_ended(service.submit(spec))
    assert (job.status, job.attempt) == (Status.FAILED, job.max_attempts), job.error
    assert job.error is not None
    assert job.error["code"] == "out_of_memory"
    assert "lower batch_size" in job.error["message"]


def test_a_batch_that_does_not_fit_is_cut_and_the_job_succeeds(service: Service) -> None:
    network = {"architecture": "convnet", "channels": [48]}
    size = {"image_size": 160, "batch_size": 1000, "steps": 1, "epochs": None}
    spec = service.example("classification", architecture=network, device="cpu", **size)
    job_id = service.submit(spec)
    job = service.until_ended(job_id)
    assert job.status is Status.SUCCEEDED, job.error
    told = [event.message for event in service.events(job_id, "message") if "ran out of memory" in event.message]
    assert told
    assert "a step still learns from" in told[0]


def test_what_a_trainer_and_its_children_have_is_weighed() -> None:
    code = "import os, sys; whole = bytearray(200 << 20); os.fork(); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        for _ in range(2):
            leader.stdout.readline()
        assert 200 << 20 <= taken_bytes(leader.pid) < 300 << 20, "shared pages count once"
        leader.communicate(b"")


def test_the_memory_of_the_machine_is_shared_by_the_slots() -> None:
    assert allowance(5, slots=2) == 5
    whole = allowance(0, slots=1)
    assert allowance(0, slots=2) == pytest.approx(whole / 2, abs=1)
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    assert whole <= 0.9 * 1024 * int(total.split()[1])
