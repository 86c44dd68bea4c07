"""The client against the whole service."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from weightworks import Client
from weightworks.errors import (
    Conflict,
    DownloadDamaged,
    Forbidden,
    Invalid,
    NotFound,
    Unauthenticated,
    WaitedTooLong,
)
from weightworks.files import File
from weightworks.jobs import Job

LONG = {"method": "classification", "epochs": 100_000, "batch_size": 16}


def test_files_go_up_with_progress_and_come_back_the_same(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("a,b\n" + "\n".join(f"{row},{row * 2}" for row in range(20_000)) + "\n")
    sent: list[int] = []
    file = client.files.upload(path, on_bytes=sent.append)
    assert sum(sent) == file.bytes == path.stat().st_size
    assert (file.kind, file.sha256) == ("table", hashlib.sha256(path.read_bytes()).hexdigest())
    assert client.files.get(file.id) == file
    assert file.id in [one.id for one in client.files.list()]
    assert client.files.download(file.id, tmp_path / "back").read_bytes() == path.read_bytes()
    client.files.delete(file.id)
    with pytest.raises(NotFound):
        client.files.get(file.id)


def test_a_bad_file_is_refused_with_its_problems_by_line(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "ragged.csv"
    path.write_text("a,b\n1,2\n1,2,3\n4\n")
    with pytest.raises(Invalid) as raised:
        client.files.upload(path)
    assert [problem["where"] for problem in raised.value.problems] == ["line 3", "line 4"]
    assert raised.value.status == 422
    assert raised.value.request_id


def test_methods_say_which_fields_name_files_and_models(client: Client) -> None:
    assert {"classification", "pca"} <= {method.id for method in client.methods.list()}
    method = client.methods.get("distillation")
    assert method.fields_that_name("file") == {"dataset", "validation"}
    assert method.fields_that_name("model") == {"teacher", "student"}


def test_a_wrong_key_and_a_wrong_spec_are_refused_by_name(client: Client, table: File) -> None:
    with Client(client.connection.base_url, "ww-wrong") as stranger, pytest.raises(Unauthenticated):
        stranger.methods.list()
    with pytest.raises(Invalid) as raised:
        client.jobs.create({"method": "pca", "dataset": table.id, "n_componentz": 2})
    assert raised.value.param == "n_componentz"


def test_a_key_of_ones_own_can_be_made_and_taken_back(client: Client) -> None:
    made = client.api_keys.create("notebook", role="read")
    assert made.key is not None
    assert made.key not in repr(made)
    with Client(client.connection.base_url, made.key) as reader:
        assert reader.methods.list()
        client.api_keys.delete(made.id)
        with pytest.raises(Unauthenticated):
            reader.methods.list()


def test_a_preview_stores_nothing(client: Client, images: File) -> None:
    before = [job.id for job in client.jobs.list()]
    preview = client.jobs.preview({"method": "classification", "dataset": images.id, "epochs": 2, "batch_size": 60})
    assert preview["estimate"]["steps"] == 4
    assert [job.id for job in client.jobs.list()] == before


def test_the_same_submission_twice_is_one_job(client: Client, table: File) -> None:
    spec = {"method": "pca", "dataset": table.id, "n_components": 2}
    first = client.jobs.create(spec, idempotency_key="the-same")
    assert client.jobs.create(spec, idempotency_key="the-same").id == first.id
    with pytest.raises(Conflict):
        client.jobs.create({**spec, "n_components": 3}, idempotency_key="the-same")
    assert client.jobs.wait(first.id, timeout=180).status == "succeeded"


def test_a_job_tells_what_it_did(client: Client, trained: Job) -> None:
    assert trained.id in [job.id for job in client.jobs.list(metadata={"team": "client"}, status="succeeded")]
    assert [job.id for job in client.jobs.list(metadata={"team": "nobody"})] == []
    series = client.jobs.metrics(trained.id, names=["loss"], max_points=10)["loss"]
    assert 2 <= len(series.steps) == len(series.values) <= 10
    checkpoints = client.jobs.checkpoints(trained.id)
    assert {one.step for one in checkpoints} <= {40, 80}
    assert checkpoints
    assert isinstance(list(client.jobs.logs(trained.id)), list)
    model = client.models.get(trained.model or "")
    assert (model.job, model.method) == (trained.id, "classification")
    assert model.id in [one.id for one in client.models.list()]


def test_the_list_goes_on_over_pages(client: Client, table: File, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        client.jobs.create({"method": "pca", "dataset": table.id, "n_components": number + 1, "name": "paged"})
    whole = [job.id for job in client.jobs.list(method="pca")]
    monkeypatch.setattr("weightworks.pages.PAGE", 2)
    assert [job.id for job in client.jobs.list(method="pca")] == whole


def test_events_come_in_order_each_once_and_end(client: Client, trained: Job) -> None:
    events = list(client.jobs.events(trained.id))
    assert [event.place for event in events] == sorted({event.place for event in events})
    assert [event.data["status"] for event in events if event.type == "status"] == ["queued", "running", "succeeded"]
    assert list(client.jobs.events(trained.id, after=events[2].id)) == events[3:]


def test_a_watcher_whose_connection_is_cut_again_and_again_misses_nothing(
    client: Client, distant: Client, relay: Any, trained: Job
) -> None:
    relay.cut_after = 2000
    assert list(distant.jobs.events(trained.id)) == list(client.jobs.events(trained.id))
    assert relay.connections > 3


def test_a_running_job_is_watched_live_and_cancelled(client: Client, images: File) -> None:
    job = client.jobs.create({**LONG, "dataset": images.id})
    with pytest.raises(WaitedTooLong):
        client.jobs.wait(job.id, timeout=0.1)
    seen = []
    for event in client.jobs.events(job.id):
        seen.append(event)
        if event.type == "metrics" and not any(one.type == "metrics" for one in seen[:-1]):
            client.jobs.cancel(job.id)
    assert seen[-1].data["status"] == "cancelled"
    assert client.jobs.get(job.id).status == "cancelled"
    assert client.jobs.artifacts(job.id)
    with pytest.raises(Conflict):
        client.jobs.cancel(job.id)
    assert client.jobs.retry(job.id).status == "queued"
    assert (paused := client.jobs.pause(job.id)).status == "paused" or paused.pause_requested
    while client.jobs.get(job.id).status != "paused":
        time.sleep(0.05)
    assert client.jobs.resume(job.id).status in ("queued", "running")
    client.jobs.cancel(job.id)
    assert client.jobs.wait(job.id, timeout=180).status == "cancelled"


def test_a_drained_worker_stays_and_what_waits_says_so(client: Client, table: File) -> None:
    (worker,) = client.workers.list()
    assert client.workers.drain(worker.id).drain_requested
    while not next(client.workers.list()).is_draining:
        time.sleep(0.05)
    job = client.jobs.create({"method": "pca", "dataset": table.id, "n_components": 2})
    assert (job.waiting or {})["what"] == "undrained_worker"
    client.workers.resume(worker.id)
    assert client.jobs.wait(job.id, timeout=180).status == "succeeded"
    with pytest.raises(NotFound):
        client.workers.drain("nobody")


def test_a_projects_quotas_are_seen_and_set(client: Client, table: File) -> None:
    project = next(client.projects.list())
    assert client.projects.get(project.id).name == "default"
    changed = client.projects.set_quotas(project.id, max_unfinished_jobs=7, max_stored_bytes=1)
    assert (changed.quotas["max_unfinished_jobs"], changed.limits["max_running_jobs"]) == (7, None)
    assert changed.usage["stored_bytes"] > 1
    with pytest.raises(Forbidden) as raised:
        client.jobs.create({"method": "pca", "dataset": table.id, "n_components": 2})
    assert (raised.value.code, raised.value.param) == ("quota_exceeded", "max_stored_bytes")
    client.projects.set_quotas(project.id, max_unfinished_jobs=None, max_stored_bytes=None)


def test_downloads_are_checked_gone_on_with_and_not_repeated(client: Client, trained: Job, tmp_path: Path) -> None:
    told: list[int] = []
    paths = client.jobs.download(trained.id, tmp_path, on_bytes=told.append)
    promised = {tmp_path / one.path: one for one in client.jobs.artifacts(trained.id)}
    assert set(paths) == set(promised)
    assert sum(told) == sum(one.bytes for one in promised.values())
    for path, one in promised.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == one.sha256
    weights = tmp_path / "model.safetensors"
    content, seen = weights.read_bytes(), weights.stat().st_mtime_ns
    client.jobs.download(trained.id, tmp_path)
    assert weights.stat().st_mtime_ns == seen
    weights.unlink()
    weights.with_name("model.safetensors.partial").write_bytes(content[:1000])
    told.clear()
    client.jobs.download(trained.id, tmp_path, on_bytes=told.append)
    assert weights.read_bytes() == content
    weights.write_bytes(b"\0" * 10)
    weights.with_name("model.safetensors.partial").write_bytes(b"\0" * 1000)  # not what the server has
    client.jobs.download(trained.id, tmp_path)
    assert weights.read_bytes() == content
    assert not list(tmp_path.rglob("*.partial"))


def test_a_download_survives_cut_connections(
    client: Client, distant: Client, relay: Any, trained: Job, tmp_path: Path
) -> None:
    weights = next(one for one in client.jobs.artifacts(trained.id) if one.path == "model.safetensors")
    relay.cut_after = 8000
    distant.jobs.download(trained.id, tmp_path)
    assert hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest() == weights.sha256


def test_what_does_not_match_its_hash_is_never_kept(client: Client, trained: Job, tmp_path: Path) -> None:
    from weightworks.downloads import fetch

    url = f"/v1/jobs/{trained.id}/artifacts/config.json"
    one = next(one for one in client.jobs.artifacts(trained.id) if one.path == "config.json")
    with pytest.raises(DownloadDamaged):
        fetch(client._transport, url, tmp_path / "config.json", size=one.bytes, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["../up", "/root", "a/../../b", "", "a\\..\\b"])
def test_a_file_outside_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    from weightworks.downloads import inside

    with pytest.raises(DownloadDamaged):
        inside(tmp_path, path)
