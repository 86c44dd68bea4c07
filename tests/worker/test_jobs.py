"""Workers and the jobs they are given, without an API: what tests/faults breaks is not broken again here."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import zipfile
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from sqlalchemy import select, update

from core.jobs import asking, workers
from core.jobs.models.jobs import Job
from core.jobs.models.results import TrainedModel
from core.jobs.models.workers import WorkerSlot
from core.jobs.quotas import UNLIMITED
from core.jobs.status import Status
from core.jobs.waiting import WaitsFor, waits_of
from core.jobs.workers import living_workers
from core.settings import Settings
from worker.look import Worker

LONG = {"epochs": None, "steps": 250, "checkpoint_every": 20, "hidden_sizes": [256, 256]}


@pytest.fixture(scope="module", autouse=True)
def three_workers(service) -> None:
    """Three, so that whatever happens to two of them another goes on."""
    for _ in range(3):
        service.start_worker()


@pytest.fixture(scope="module")
def long_spec(service) -> dict[str, Any]:
    """Some seconds of training, with checkpoints."""
    return service.example("autoencoder", **LONG)


@pytest.fixture(scope="module")
def undisturbed(service, three_workers, long_spec: dict[str, Any]) -> str:
    """The SHA-256 of the weights that `long_spec` gives."""
    job_id = service.submit(long_spec)
    assert service.until_ended(job_id).status is Status.SUCCEEDED
    return weights_of(service, job_id)


def weights_of(service, job_id: str) -> str:
    return hashlib.sha256(service.artifacts(job_id)["model.safetensors"].read_bytes()).hexdigest()


def assert_no_gaps(events) -> None:
    by_fence: dict[int, list[int]] = {}
    for event in events:
        by_fence.setdefault(event.fence, []).append(event.seq)
    for fence, numbers in by_fence.items():
        assert numbers == list(range(1, len(numbers) + 1)), f"fence {fence}"


def test_a_job_succeeds_with_its_artifacts_and_all_its_events(service) -> None:
    job_id = service.submit(service.example("autoencoder"))
    job = service.until_ended(job_id)
    assert job.status is Status.SUCCEEDED
    assert job.progress["step"] == job.progress["total"] > 0
    artifacts = service.artifacts(job_id)
    assert {"model.safetensors", "config.json", "metrics.json", "README.md", "manifest.json"} <= artifacts.keys()
    listed = {entry["path"]: entry for entry in json.loads(artifacts["manifest.json"].read_text())["files"]}
    assert listed.keys() == artifacts.keys() - {"manifest.json"}
    for path, entry in listed.items():
        assert hashlib.sha256(artifacts[path].read_bytes()).hexdigest() == entry["sha256"]
    assert job.metrics.items() >= json.loads(artifacts["metrics.json"].read_text()).items()
    events = service.events(job_id)
    assert_no_gaps(events)
    assert [event.data["status"] for event in events if event.type == "status"] == ["queued", "running", "succeeded"]
    assert any(event.type == "metrics" and event.data["values"]["loss"] > 0 for event in events)
    in_redis = service.until(lambda: service.publisher.published(job_id)[-1:])
    assert (in_redis[0].type, in_redis[0].data) == ("status", events[-1].data)
    published = [(event.fence, event.seq) for event in service.publisher.published(job_id)]
    assert published == [(event.fence, event.seq) for event in events if event.fence > 0]
    service.until(lambda: not (service.storage.root / "runs" / job_id).exists())


def test_a_cancel_in_the_middle_leaves_weights(service, long_spec) -> None:
    job_id = service.submit({**long_spec, "steps": 100_000})
    service.until_training(job_id)
    with service.database.write() as session:
        asking.cancel_job(session, "proj-test", job_id)
    assert service.until_ended(job_id).status is Status.CANCELLED
    artifacts = service.artifacts(job_id)
    assert load_file(artifacts["model.safetensors"])
    assert service.checkpoints(job_id)[0].step > 0
    assert_no_gaps(service.events(job_id))


def test_a_paused_job_is_resumed_and_ends_bit_for_bit_the_same(service, long_spec, undisturbed: str) -> None:
    job_id = service.submit({**long_spec, "checkpoint_every": 100_000})
    service.until_training(job_id)
    job = ask(service, asking.pause_job, job_id)
    assert job.pause_requested
    job = service.until(lambda: job if (job := service.job(job_id)).status is Status.PAUSED else None)
    assert (job.attempt, job.owner) == (0, None)
    assert service.checkpoints(job_id)[0].step > 0
    ask(service, asking.resume_job, job_id)
    job = service.until_ended(job_id)
    assert (job.status, job.attempt, job.fence) == (Status.SUCCEEDED, 1, 2)
    assert weights_of(service, job_id) == undisturbed
    assert_no_gaps(service.events(job_id))


def test_a_trainer_that_does_not_hear_is_killed_and_the_job_is_paused(service, long_spec, undisturbed: str) -> None:
    job_id = service.submit(long_spec)
    trainer = service.until(lambda: service.job(job_id).owner) and service.trainer_of(job_id)
    service.until_training(job_id)
    trainer.send_signal(signal.SIGSTOP)
    ask(service, asking.pause_job, job_id)
    job = service.until(lambda: job if (job := service.job(job_id)).status is Status.PAUSED else None)
    assert job.attempt == 0
    ask(service, asking.resume_job, job_id)
    assert service.until_ended(job_id).attempt == 1
    assert weights_of(service, job_id) == undisturbed


def ask(service, what, job_id: str) -> Job:
    with service.database.write() as session:
        return what(session, "proj-test", job_id)


def test_a_method_that_refuses_its_data_fails_the_job_once_and_says_why(service) -> None:
    spec = {**service.example("pca"), "dataset": service.upload(b"a,b\n1,2\n3,oranges\n4,5\n")}
    job = service.until_ended(service.submit(spec))
    assert (job.status, job.attempt) == (Status.FAILED, 1)
    assert "oranges" in job.error["message"]
    assert job.error["code"] == "invalid_data"
    traceback = [event.message for event in service.events(job.id, "log")]
    assert "Traceback (most recent call last):" in traceback
    assert service.events(job.id)[-1].data["status"] == "failed"


def test_a_deleted_data_set_fails_the_job_with_the_field(service) -> None:
    job = service.until_ended(service.submit({**service.example("pca"), "dataset": "file-deleted"}))
    assert job.status is Status.FAILED
    assert (job.error["code"], job.error["param"]) == ("not_found", "dataset")


def test_the_model_of_one_job_is_the_teacher_of_the_next(service) -> None:
    teacher = service.submit(service.example("classification"))
    spec = service.example("distillation", teacher={"job": teacher})
    student = service.submit(spec, needs={"teacher": teacher})
    assert service.until_ended(student).status is Status.SUCCEEDED
    with service.database.read() as session:
        lineage = session.scalar(select(TrainedModel.lineage).where(TrainedModel.job_id == student))
    assert lineage["teacher"]["job"] == teacher
    assert lineage["job"] == student


def test_an_uploaded_model_is_unpacked_for_the_trainer(service) -> None:
    teacher = service.until_ended(service.submit(service.example("classification"))).id
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for path, place in service.artifacts(teacher).items():
            file.write(place, f"teacher/{path}")
    spec = service.example("distillation", teacher=service.upload(archive.getvalue()))
    student = service.until_ended(service.submit(spec))
    assert student.status is Status.SUCCEEDED, student.error


def test_a_supervisor_whose_lease_was_lost_leaves_and_writes_nothing(service, long_spec) -> None:
    job_id = service.submit({**long_spec, "steps": 100_000})
    service.until(lambda: service.checkpoints(job_id))
    trainer = service.trainer_of(job_id)
    with service.database.write() as session:
        stolen = update(Job).where(Job.id == job_id).values(fence=Job.fence + 1, owner="another")
        session.execute(stolen)
    written = len(service.events(job_id))
    checkpoints = [row.id for row in service.checkpoints(job_id)]
    service.until(lambda: has_ended(trainer))
    after = service.submit(service.example("pca"))
    assert service.until_ended(after).status is Status.SUCCEEDED
    assert len(service.events(job_id)) == written
    assert [row.id for row in service.checkpoints(job_id)] == checkpoints
    assert service.artifacts(job_id) == {}
    job = service.job(job_id)
    assert (job.status, job.owner) == (Status.RUNNING, "another")
    with service.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(status=Status.FAILED))


def test_trainers_see_no_credentials(service, long_spec) -> None:
    job_id = service.submit(long_spec)
    environment = service.until(lambda: service.job(job_id).owner) and service.zygote_of(job_id).environ()
    assert "WEIGHTWORKS_SUPERVISED_BY" in environment
    assert not any("ww-not-for-trainers" in value or "redis.sock" in value for value in environment.values())
    service.until_ended(job_id)


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_worker_asked_to_drain_gives_its_job_back_stays_and_takes_jobs_again(service, long_spec) -> None:
    job_id = service.submit(long_spec)
    service.until_training(job_id)
    owner = service.job(job_id).owner
    ask_to_drain(service, should_drain=True)
    service.until(lambda: all(row.is_draining for row in workers_of(service)) and service.job(job_id).owner is None)
    job = service.job(job_id)
    assert (job.status, job.attempt) == (Status.QUEUED, 0)
    assert service.checkpoints(job_id)[0].step > 0
    assert owner in {row.id for row in workers_of(service)}
    service.until(lambda: what_keeps(service, job) is WaitsFor.UNDRAINED_WORKER)  # workers that were killed are gone
    ask_to_drain(service, should_drain=False)
    job = service.until_ended(job_id)
    assert (job.status, job.attempt, job.fence) == (Status.SUCCEEDED, 1, 2)
    assert_no_gaps(service.events(job_id))


def what_keeps(service, job: Job) -> WaitsFor:
    with service.database.read() as session:
        return waits_of(session, "proj-test", [job], defaults=UNLIMITED, beat_seconds=0.3)[job.id].what


def workers_of(service) -> list[WorkerSlot]:
    with service.database.read() as session:
        return living_workers(session, beat_seconds=0.3)


def ask_to_drain(service, *, should_drain: bool) -> None:
    """All three, one whose beat is late too."""
    with service.database.write() as session:
        for row in living_workers(session, beat_seconds=60):
            workers.ask_to_drain(session, row.id, should_drain=should_drain)


def test_a_ready_file_that_a_killed_worker_left_says_nothing_of_the_next(service) -> None:
    """In a container that is started again, whatever it was, files are still there."""
    ready = service.folder / "ready"
    ready.write_text("left")
    worker = service.start_worker(WEIGHTWORKS_READY_FILE=str(ready))
    service.until(lambda: not ready.exists())
    service.until(ready.exists)
    assert ready.read_text() == ""
    worker.terminate()
    assert worker.wait() == 0


def test_workers_of_one_host_and_process_number_are_told_apart(service) -> None:
    """Containers have process numbers of their own, and may share a host's name."""
    config = Settings(database_url=f"sqlite:///{service.folder}/jobs.sqlite3", storage_url=str(service.folder / "s"))
    one, other = Worker(config, drain=0), Worker(config, drain=0)
    assert one.owner != other.owner
    one.close()
    other.close()
