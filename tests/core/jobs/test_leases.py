"""The row decides: claims, fences, leases, and what late writers get."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import select

from core.errors import Conflict, NotFound, WeightworksError
from core.jobs import asking, attempts, checkpointing, claiming, leases, publishing, store, sweeping
from core.jobs.artifacts import Published
from core.jobs.database import Database
from core.jobs.events import EventId, NewEvent, as_row, insert_events, list_events
from core.jobs.files import FINE_TUNE_RESULTS, STEP_METRICS
from core.jobs.leases import LeaseLost
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.models.results import Checkpoint, TrainedModel
from core.jobs.status import Status
from core.spec import MethodSpec

PROJECT = "proj-test"


def submit(database: Database, *, needs: dict[str, str] | None = None, max_attempts: int = 3, **spec) -> str:
    with database.write() as session:
        made = MethodSpec(method="pca", dataset="file-1", **spec)
        return store.create_job(session, project_id=PROJECT, spec=made, max_attempts=max_attempts, needs=needs).id


def claim(database: Database, *, owner: str = "worker-1", seconds: float = 60.0, devices=("auto", "cpu")):
    with database.write() as session:
        return claiming.claim_job(session, owner=owner, devices=devices, lease_seconds=seconds)


def get(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return store.get_job(session, PROJECT, job_id)


def events_of(database: Database, job_id: str) -> list[tuple[str, str]]:
    with database.read() as session:
        return [(f"{event.fence}-{event.seq}", event.data.get("status", "")) for event in list_events(session, job_id)]


def succeed(database: Database, held: leases.Claim) -> str:
    file = Published("model.safetensors", f"{held.job_id}/m", 3, "0" * 64, "application/octet-stream")
    with database.write() as session:
        return publishing.succeed_job(session, held, files=[file], metrics={"loss": 0.5}, lineage={})


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


def test_a_lost_lease_is_queued_again_and_the_late_writer_is_rejected(database: Database) -> None:
    job_id = submit(database)
    late = claim(database, seconds=0.01)
    time.sleep(0.05)
    with database.write() as session:
        assert sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60)).requeued == [job_id]
    held = claim(database, owner="worker-2")
    assert (held.job_id, held.attempt) == (job_id, 2)
    assert held.fence > late.fence
    for write in (
        lambda session: leases.renew_lease(session, late, lease_seconds=1, progress=None, metrics={}),
        lambda session: publishing.succeed_job(session, late, files=[], metrics={}, lineage={}),
        lambda session: attempts.fail_job(session, late, WeightworksError("late"), is_retryable=False),
        lambda session: attempts.release_job(session, late),
        lambda session: checkpointing.add_checkpoint(session, late, key="k", step=1, size=1, sha256="", metrics={}),
    ):
        with pytest.raises(LeaseLost), database.write() as session:
            write(session)
    succeed(database, held)
    assert get(database, job_id).status is Status.SUCCEEDED
    ids = [EventId.parse(place) for place, _ in events_of(database, job_id)]
    assert ids == sorted(ids, key=lambda place: (place.fence, place.seq))
    assert len(set(ids)) == len(ids)


def test_attempts_are_bounded(database: Database) -> None:
    job_id = submit(database, max_attempts=2)
    for _ in range(2):
        claim(database, seconds=0.01)
        time.sleep(0.05)
        with database.write() as session:
            sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60))
    job = get(database, job_id)
    assert job.status is Status.FAILED
    assert job.error["code"] == "worker_lost"
    assert claim(database) is None


def test_a_retryable_failure_uses_an_attempt_a_release_does_not(database: Database) -> None:
    job_id = submit(database, max_attempts=2)
    with database.write() as session:
        attempts.release_job(session, claiming.claim_job(session, owner="w", devices=["auto"], lease_seconds=9))
    assert get(database, job_id).attempt == 0
    crash = WeightworksError("killed by signal 9")
    with database.write() as session:
        held = claiming.claim_job(session, owner="w", devices=["auto"], lease_seconds=9)
        assert attempts.fail_job(session, held, crash, is_retryable=True) is Status.QUEUED
    with database.write() as session:
        held = claiming.claim_job(session, owner="w", devices=["auto"], lease_seconds=9)
        assert attempts.fail_job(session, held, crash, is_retryable=True) is Status.FAILED
    assert get(database, job_id).error["message"] == "killed by signal 9"


def test_a_job_waits_for_the_weights_it_needs(database: Database) -> None:
    teacher = submit(database)
    student = submit(database, needs={"teacher": teacher}, priority=9)
    held = claim(database)
    assert held.job_id == teacher
    assert claim(database) is None
    succeed(database, held)
    assert claim(database).job_id == student


def test_a_failed_need_fails_the_whole_chain_at_once(database: Database) -> None:
    teacher = submit(database)
    student = submit(database, needs={"teacher": teacher})
    grandchild = submit(database, needs={"base": student})
    held = claim(database)
    with database.write() as session:
        attempts.fail_job(session, held, WeightworksError("no"), is_retryable=False)
    for job_id, needed in ((student, teacher), (grandchild, student)):
        job = get(database, job_id)
        assert job.status is Status.FAILED
        assert needed in job.error["message"]
    late = submit(database, needs={"teacher": teacher})
    assert get(database, late).status is Status.FAILED


def test_cancel_in_each_state(database: Database) -> None:
    job_id = submit(database)
    with database.write() as session:
        assert asking.cancel_job(session, PROJECT, job_id).status is Status.CANCELLED
    with pytest.raises(Conflict, match="cancelled already"), database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    running = submit(database)
    held = claim(database)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, running)
    with database.write() as session:
        assert leases.renew_lease(session, held, lease_seconds=9, progress=None, metrics={})
    with database.write() as session:
        publishing.cancel_running_job(session, held, files=[], metrics={})
    assert get(database, running).status is Status.CANCELLED


def test_a_lost_worker_does_not_lose_a_cancel(database: Database) -> None:
    job_id = submit(database)
    claim(database, seconds=0.01)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    time.sleep(0.05)
    with database.write() as session:
        sweeping.sweep_expired(session, sweeping.suspect_leases(session, lease_seconds=60))
    assert get(database, job_id).status is Status.CANCELLED


def test_retry_queues_again_only_what_failed_or_was_cancelled(database: Database) -> None:
    job_id = submit(database)
    with pytest.raises(Conflict, match="queued"), database.write() as session:
        asking.retry_job(session, PROJECT, job_id)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, job_id)
    with database.write() as session:
        asking.retry_job(session, PROJECT, job_id)
    assert claim(database).job_id == job_id


def test_the_newest_two_checkpoints_are_kept(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    dropped = []
    for step in (10, 20, 20, 30):
        with database.write() as session:
            told = {"key": f"step-{step}", "step": step, "size": 1, "sha256": "", "metrics": {}}
            dropped += checkpointing.add_checkpoint(session, held, **told).superseded
    with database.read() as session:
        kept: list[Checkpoint] = checkpointing.latest_checkpoints(session, job_id)
    assert [row.step for row in kept] == [30, 20]
    assert dropped == ["step-10"]


def test_the_newest_three_of_epochs_are_kept_besides(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    for step in range(1, 10):
        with database.write() as session:
            told = {"key": f"step-{step}", "step": step, "size": 1, "sha256": "", "metrics": {}}
            added = checkpointing.add_checkpoint(session, held, **told, is_epoch=step % 2 == 0)
    with database.write() as session:
        kept = {row.step: row.id for row in checkpointing.latest_checkpoints(session, job_id)}
        again = checkpointing.add_checkpoint(session, held, key="new", step=8, size=1, sha256="", metrics={})
        row = session.get_one(Checkpoint, again.id)
        assert (row.key, row.is_epoch) == ("new", True)
    assert list(kept) == [9, 8, 6, 4]
    assert (again.id, again.superseded) == (kept[8], ["step-8"])
    assert added.id == kept[9]


def test_a_job_of_the_fine_tuning_api_gives_its_model_a_name_and_its_results_a_file(database: Database) -> None:
    files = [
        Published(path, f"k/{path}", 3, sha256 * 64, "text/csv")
        for path, sha256 in (("model.safetensors", "0"), (STEP_METRICS, "1"))
    ]
    with database.write() as session:
        spec = MethodSpec(method="pca", dataset="file-1")
        told = {"project_id": PROJECT, "spec": spec, "max_attempts": 1}
        native = store.create_job(session, **told).id
        asked = store.create_job(session, **told, request={"model": "llama", "suffix": "x"}).id
    for job_id in (native, asked):
        held = claim(database)
        assert held.job_id == job_id
        with database.write() as session:
            publishing.succeed_job(session, held, files=files, metrics={}, lineage={})
    with database.read() as session:
        aliases = dict(session.execute(select(TrainedModel.job_id, TrainedModel.alias)).all())
        assert aliases == {native: None, asked: f"ft:llama:test:x:{asked.removeprefix('job-')}"}
        (file,) = session.scalars(select(File))
        assert (file.purpose, file.filename, file.bytes, file.sha256) == (FINE_TUNE_RESULTS, STEP_METRICS, 3, "1" * 64)
        assert (get(database, native).result_file_id, get(database, asked).result_file_id) == (None, file.id)


def test_jobs_without_metadata_are_listed_by_themselves(database: Database) -> None:
    bare, marked = submit(database), submit(database, metadata={"a": ""})
    with database.read() as session:
        for wanted, found in ((None, {bare, marked}), (False, {bare}), (True, {marked})):
            assert {job.id for job in store.list_jobs(session, PROJECT, has_metadata=wanted)} == found


def test_repeated_events_are_written_once(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    rows = [as_row(job_id, held.fence, seq, NewEvent("log", f"line {seq}"), now=1.0) for seq in (2, 3)]
    for _ in range(2):
        with database.write() as session:
            insert_events(session, rows)
    assert [place for place, _ in events_of(database, job_id)] == ["0-1", "1-1", "1-2", "1-3"]


def test_projects_do_not_see_each_other(database: Database) -> None:
    job_id = submit(database)
    with pytest.raises(NotFound), database.read() as session:
        store.get_job(session, "proj-other", job_id)


def test_listing_pages_without_gap_or_repeat(database: Database) -> None:
    jobs = [submit(database, metadata={"run": str(index % 2)}) for index in range(7)]
    with database.read() as session:
        seen: list[str] = []
        after = None
        while page := store.list_jobs(session, PROJECT, limit=3, order="asc", after=after):
            seen += [job.id for job in page]
            after = page[-1].id
        assert seen == jobs
        odd = store.list_jobs(session, PROJECT, metadata={"run": "1"}, order="asc")
        assert [job.id for job in odd] == jobs[1::2]
