"""The collector, in two API processes at once and almost without grace: what may go goes, and nothing else."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from core.jobs import publishing
from core.jobs.events import NewEvent
from core.jobs.ids import new_id
from core.jobs.inputs import ModelInput
from core.jobs.models.files import File, ModelFetch, Upload
from core.jobs.models.jobs import Job
from core.jobs.models.webhooks import WebhookDelivery
from core.placement import place_inputs
from core.storage import artifact_key, checkpoint_key, file_key, sample_key
from tests.api.receiver import Receiver
from tests.api.service import Service, serving, sse, submit, table, upload, wait_for, work
from tests.api.test_samples import show
from tests.api.test_uploads import announce, complete, send

PREVIEW_SECONDS = 2.0
SETTINGS = {
    "COLLECT_SECONDS": "0.1",
    "COLLECT_GRACE_SECONDS": "0.05",
    "KEEP_CHECKPOINTS_DAYS": "5",
    "KEEP_EVENTS_DAYS": "5",
    "KEEP_ARTIFACTS_DAYS": "5",
    "KEEP_DELIVERIES_DAYS": "5",
    "PREVIEW_SECONDS": str(PREVIEW_SECONDS),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """Two API processes that collect all the time."""
    folder = tmp_path_factory.mktemp("collecting")
    changes = {f"WEIGHTWORKS_{name}": value for name, value in SETTINGS.items()}
    with serving(folder, redis_url, 2, **changes) as service:
        yield service
    assert "could not" not in (folder / "api.log").read_text()


@pytest.fixture
def collected(service: Service) -> Callable[[], None]:
    """Waits until each process has looked at all that is there now, twice."""

    def wait() -> None:
        for number in range(6):
            orphan = put(service, f"jobs/job-{new_id('none')}/1/artifacts/{number}", b"x")
            wait_for(lambda orphan=orphan: not orphan.exists())

    return wait


def put(service: Service, key: str, content: bytes = b"left over") -> Path:
    """What nothing points to."""
    path = service.storage.path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def age(service: Service, job_id: str, days: float) -> None:
    with service.database.write() as session:
        session.get_one(Job, job_id).finished_at = int(time.time() - days * 86400)


def files_of(service: Service, *folders: str) -> set[str]:
    return {found.key for folder in folders for found in service.storage.files_below(folder)}


def test_what_nothing_points_to_goes_and_all_else_stays(
    http: httpx.Client, service: Service, collected: Callable[[], None]
) -> None:
    file = upload(http)
    ended, running = (submit(http, file["id"])["id"] for _ in range(2))
    worker = work(service, ended)
    worker.checkpoint(1, b"state")
    show(worker, "words", 1, b"one")
    worker.succeed()
    worker = work(service, running)
    worker.checkpoint(5, b"state")
    before = files_of(service, "files", "jobs")
    at_work = put(service, f"runs/{running}/1/inputs/model")
    put_at = time.monotonic()
    preview = put(service, "incoming/preview-x/inputs/model")
    unwritten = put(service, checkpoint_key(running, 1, 6))  # linked, and not registered yet
    told_to_redis = put(service, sample_key(running, 0, "words-1.txt"))  # by a worker that was lost
    content = hashlib.sha256(b"left over").hexdigest()
    orphans = [
        put(service, file_key(content)),
        put(service, f"{file_key(file['sha256'])}.0123456789ab0123456789ab"),
        put(service, artifact_key(ended, 1, "deep/half.bin")),
        put(service, artifact_key(running, 0, "model.safetensors")),
        put(service, checkpoint_key(ended, 1, 2)),
        put(service, f"jobs/{ended}/1/samples/words-2.txt"),
        put(service, f"runs/{ended}/1/checkpoints/state"),
        put(service, f"runs/{running}/0/artifacts/model"),
        put(service, "runs/job-nowhere/3/scratch"),
        put(service, "incoming/0123456789"),
        put(service, "parts/part-nowhere"),
    ]
    wait_for(lambda: not [path for path in orphans if path.exists()])
    wait_for(lambda: not preview.exists())
    assert time.monotonic() - put_at >= PREVIEW_SECONDS
    collected()
    kept = {str(path.relative_to(service.storage.root)) for path in (unwritten, told_to_redis)}
    assert files_of(service, "files", "jobs") == before | kept
    assert at_work.exists()
    assert not (service.storage.root / "runs" / ended).exists()
    assert not (service.storage.root / "jobs" / ended / "1" / "artifacts" / "deep").exists()
    worker.succeed()
    collected()
    assert not unwritten.exists()
    assert not told_to_redis.exists()
    assert not at_work.exists()
    assert http.get(f"/v1/jobs/{running}/weights").content == b"weights"
    told = (service.folder / "api.log").read_text()
    assert "INFO: weightworks.collector: collected: " in told
    assert " bytes are free again" in told


def test_what_a_living_process_streams_into_stays_whatever_its_age(
    service: Service, collected: Callable[[], None]
) -> None:
    with service.storage.incoming_file() as (path, file):
        file.write(b"slowly")
        file.flush()
        collected()
        assert path.exists()
        service.storage.link(path, file_key("0" * 64))  # as an upload does just before it writes its row
        service.storage.keep(path, "parts/part-that-has-no-row-yet")
        collected()
        assert service.storage.existing(file_key("0" * 64)).read_bytes() == b"slowly"
        assert service.storage.existing("parts/part-that-has-no-row-yet")
    wait_for(lambda: not service.storage.path(file_key("0" * 64)).exists())
    wait_for(lambda: not service.storage.path("parts/part-that-has-no-row-yet").exists())


def test_uploads_of_what_is_being_collected_lose_nothing(http: httpx.Client, service: Service) -> None:
    contents = [table(30, seed=seed) for seed in (101, 102)]

    def come_and_go(turn: int) -> None:
        content = contents[turn % 2]
        if turn % 3:
            upload_id = announce(http, content)
            part_ids = send(http, upload_id, content[:100], content[100:])
            answer = complete(http, upload_id, part_ids)
            assert answer.status_code == 200, answer.text
            file_id = answer.json()["file"]["id"]
        else:
            file_id = upload(http, content)["id"]
        assert http.get(f"/v1/files/{file_id}/content").content == content
        with service.database.write() as session:  # not by the API, so that the content is left to the collector
            session.delete(session.get_one(File, file_id))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(come_and_go, range(48)))
    stayed = [upload(http, content)["id"] for content in contents]
    names = {hashlib.sha256(content).hexdigest() for content in contents}
    for file_id, content in zip(stayed, contents, strict=True):
        assert http.get(f"/v1/files/{file_id}/content").content == content
        http.delete(f"/v1/files/{file_id}").raise_for_status()
    wait_for(lambda: not names & {Path(key).name for key in files_of(service, "files")})


def test_a_job_publishes_while_all_is_collected(
    http: httpx.Client, service: Service, collected: Callable[[], None]
) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    content = {"model.safetensors": b"weights" * 100, "deep/config.json": b"{}"}
    published = worker.publish_files(content)
    collected()
    with service.database.write() as session:
        publishing.succeed_job(session, worker.claim, files=published, metrics={}, lineage={})
    collected()
    for path, one in content.items():
        assert http.get(f"/v1/jobs/{job_id}/artifacts/{path}").content == one


def test_a_model_that_is_placed_for_a_trainer_outlives_its_keys(service: Service, tmp_path: Path) -> None:
    key = artifact_key("job-x", 1, "model.safetensors")
    put(service, key, b"weights")
    model = ModelInput("job-x", "model-x", {"model.safetensors": key})
    places = place_inputs({"teacher": model}, storage=service.storage, folder=service.storage.root / "placed")
    wait_for(lambda: not service.storage.path(key).exists())
    assert (Path(places["teacher"]["path"]) / "model.safetensors").read_bytes() == b"weights"


def test_what_is_old_goes_as_the_settings_say(
    http: httpx.Client, service: Service, collected: Callable[[], None]
) -> None:
    file = upload(http)["id"]
    old, young, needed = (submit(http, file)["id"] for _ in range(3))
    for job_id in (old, young, needed):
        worker = work(service, job_id)
        worker.checkpoint(1, b"state")
        show(worker, "words", 1, b"one")
        worker.emit(NewEvent("log", "a line", data={"attempt": 1}))
        worker.metrics(1)
        worker.succeed()
    model = http.get(f"/v1/jobs/{needed}").json()["model"]
    waiting = submit(http, file, name=model)["id"]  # stands for a field that names a model
    age(service, old, 6)
    age(service, needed, 6)
    age(service, young, 4)
    collected()
    assert len(files_of(service, f"jobs/{young}")) == 3
    assert files_of(service, f"jobs/{old}") == set()
    assert files_of(service, f"jobs/{needed}") == {artifact_key(needed, 1, "model.safetensors")}
    assert http.get(f"/v1/jobs/{old}").json()["model"] is None
    for path in ("checkpoints", "samples", "logs", "artifacts"):
        assert http.get(f"/v1/jobs/{old}/{path}").json()["data"] == []
    assert http.get(f"/v1/jobs/{old}/weights").status_code == 404
    with http.stream("GET", f"/v1/jobs/{old}/events", headers={"accept": "text/event-stream"}) as stream:
        told = list(sse(stream.iter_lines()))
    assert [data["data"]["status"] for _, _, data in told[:-1]] == ["queued", "running", "succeeded"]
    assert told[-1][2] == "[DONE]"
    http.post(f"/v1/jobs/{waiting}/cancel").raise_for_status()
    wait_for(lambda: files_of(service, f"jobs/{needed}") == set())


def test_expired_files_and_uploads_go_with_their_contents(http: httpx.Client, service: Service) -> None:
    gone, needed = (upload(http, table(seed=seed)) for seed in (201, 202))
    job_id = submit(http, needed["id"])["id"]
    upload_id = announce(http, table())
    part_ids = send(http, upload_id, table())
    with service.database.write() as session:
        session.execute(update(File).where(File.id.in_([gone["id"], needed["id"]])).values(expires_at=1))
        session.execute(update(Upload).where(Upload.id == upload_id).values(expires_at=int(time.time()) - 1))
    wait_for(lambda: not service.storage.path(file_key(gone["sha256"])).exists())
    wait_for(lambda: not service.storage.path(f"parts/{part_ids[0]}").exists())
    assert http.get(f"/v1/uploads/{upload_id}").json()["status"] == "expired"
    assert http.get(f"/v1/files/{needed['id']}/content").status_code == 200
    http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    wait_for(lambda: not service.storage.path(file_key(needed["sha256"])).exists())


def test_what_webhooks_told_long_ago_is_forgotten(http: httpx.Client, service: Service) -> None:
    with Receiver().serving() as receiver:
        body = {"name": "ours", "url": receiver.url("told"), "event_types": ["job.cancelled"]}
        place = f"/v1/webhook_endpoints/{http.post('/v1/webhook_endpoints', json=body).json()['id']}/deliveries"
        for _ in range(2):
            http.post(f"/v1/jobs/{submit(http, upload(http)['id'])['id']}/cancel").raise_for_status()
        wait_for(lambda: [one["status"] for one in http.get(place).json()["data"]] == ["delivered"] * 2)
    old, young = (one["id"] for one in http.get(place).json()["data"])
    with service.database.write() as session:
        session.get_one(WebhookDelivery, old).next_at = time.time() - 6 * 86400
        session.get_one(WebhookDelivery, young).next_at = time.time() - 4 * 86400
    wait_for(lambda: [one["id"] for one in http.get(place).json()["data"]] == [young])


def test_fetches_that_failed_long_ago_are_forgotten(http: httpx.Client, service: Service) -> None:
    project = http.get("/v1/projects").json()["data"][0]["id"]
    told = {"project_id": project, "name": "a/b", "revision": "main", "status": "failed", "created_at": 1}
    old, young = (ModelFetch(id=new_id("fetch"), seen_at=time.time() - days * 86400, **told) for days in (31, 29))
    with service.database.write() as session:
        session.add_all((old, young))
    wait_for(lambda: [one["id"] for one in http.get("/v1/model_fetches").json()["data"]] == [young.id])
