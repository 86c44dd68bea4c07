"""Jobs over HTTP: submitted, previewed, listed, watched, cancelled, tried again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from core.errors import InvalidData, Problem
from core.jobs import attempts, publishing
from core.jobs.events import NewEvent
from tests.api.service import PATIENCE, Service, start_worker, submit, upload, upload_example, work
from tests.api.test_files import model_archive


def test_a_job_is_accepted_with_its_defaults_filled_in(http: httpx.Client) -> None:
    file = upload(http)
    job = submit(http, file["id"], name="first", metadata={"run": "1"})
    assert job["status"] == "queued"
    assert job["spec"]["seed"] == 0
    assert job["spec"]["whiten"] is False
    assert job["metadata"] == {"run": "1"}
    assert job["lineage"]["dataset"]["sha256"] == file["sha256"]
    assert job["waiting"]["worker"] == "any"
    assert http.get(f"/v1/jobs/{job['id']}").json()["name"] == "first"


def test_a_job_tells_how_far_it_is(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    worker.progress(25, 100, loss=0.25)
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "running"
    assert job["waiting"] is None
    assert job["metrics"] == {"loss": 0.25}
    assert {name: job["progress"][name] for name in ("step", "total", "fraction", "rate")} == {
        "step": 25,
        "total": 100,
        "fraction": 0.25,
        "rate": 10.0,
    }
    assert 0 <= job["progress"]["estimated_finish"] - job["started_at"] < 60
    assert job["attempts"][0]["worker"] == "w-1"
    model = worker.succeed(accuracy=0.9)
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["model"], job["metrics"]) == ("succeeded", model, {"accuracy": 0.9})
    assert job["attempts"][0]["outcome"] == "succeeded"


def test_a_queued_job_tells_why_it_waits(http: httpx.Client, service: Service) -> None:
    dataset = upload(http)["id"]
    first, second = (submit(http, dataset, priority=100)["id"] for _ in range(2))
    start_worker(service)
    waiting = http.get(f"/v1/jobs/{second}").json()["waiting"]
    assert first in waiting["ahead"]
    assert waiting["position"] > http.get(f"/v1/jobs/{first}").json()["waiting"]["position"]
    assert "ahead" in waiting["reason"]
    listed = {job["id"]: job for job in http.get("/v1/jobs").json()["data"]}
    assert listed[second]["waiting"] == waiting
    for job_id in (first, second):
        http.post(f"/v1/jobs/{job_id}/cancel")


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"n_componentz": 3}, "n_componentz", "did you mean n_components"),
        ({"n_components": -1}, "n_components", "n_components"),
        ({"method": "no-such"}, "method", "method"),
        ({"method": None}, "method", "method"),
        ({"seed": "x"}, "seed", "integer"),
        ({"dataset": "../etc"}, "dataset", "pattern"),
        ({"metadata": {"a": 1}}, "metadata.a", "string"),
        ({"image_size": 8}, "image_size", "no effect"),
        ({"n_components": 50}, "n_components", "at most"),
    ],
)
def test_a_wrong_spec_is_refused_by_field(http: httpx.Client, change: dict, param: str, words: str) -> None:
    spec = {"method": "pca", "dataset": upload(http)["id"], **change}
    for path in ("/v1/jobs", "/v1/jobs/preview"):
        answer = http.post(path, json=spec)
        error = answer.json()["error"]
        assert answer.status_code == 422
        assert error["param"] == param
        assert words in error["message"]
    assert http.get("/v1/jobs").json()["data"] == []


def test_data_of_the_wrong_kind_is_refused(http: httpx.Client) -> None:
    text = upload(http, b"one line of words\nanother line of words\n" * 20, name="words.txt")
    answer = http.post("/v1/jobs", json={"method": "pca", "dataset": text["id"]})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "dataset"
    assert "takes table, images" in answer.json()["error"]["message"]


def test_a_missing_file_is_not_found(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", json={"method": "pca", "dataset": "file-nowhere"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "dataset")


def test_a_preview_measures_the_first_steps(http: httpx.Client, service: Service) -> None:
    dataset = upload_example(http, "autoencoder")
    spec = {"method": "autoencoder", "dataset": dataset["id"], "steps": 100_000, "batch_size": 50}
    estimate = http.post("/v1/jobs/preview", json=spec, timeout=PATIENCE).json()["estimate"]
    assert (estimate["steps"], estimate["note"]) == (100_000, None)
    assert 20 < estimate["seconds"] < 20_000
    assert 10 * 2**20 < estimate["memory_bytes"] < 4 * 2**30
    assert estimate["artifact_bytes"] > 10_000
    assert estimate["device"]
    assert list(service.storage.incoming.glob("preview-*")) == []


def test_a_preview_tells_what_the_job_would_end_with(http: httpx.Client) -> None:
    dataset = upload_example(http, "autoencoder")
    model = upload(http, model_archive(), name="model.zip", purpose="base-model")
    spec = {"method": "fine_tuning", "task": "image_classification", "base": model["id"], "dataset": dataset["id"]}
    answer = http.post("/v1/jobs/preview", json=spec, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "base")
    job_id = submit(http, upload_example(http, "pca")["id"])["id"]
    waiting = {**spec, "base": {"job": job_id}}
    assert job_id in http.post("/v1/jobs/preview", json=waiting).json()["estimate"]["note"]


def test_preview_stores_nothing_and_counts_steps(http: httpx.Client) -> None:
    dataset = upload_example(http, "autoencoder")
    spec = {"method": "autoencoder", "dataset": dataset["id"], "epochs": 3, "batch_size": 50}
    preview = http.post("/v1/jobs/preview", json=spec, params={"measure": False}).json()
    examples = dataset["profile"]["examples"]
    assert preview["estimate"]["steps"] == 3 * -(-examples // 50)
    assert (preview["estimate"]["seconds"], preview["estimate"]["note"]) == (None, "not measured")
    assert preview["profile"] == dataset["profile"]
    assert preview["spec"]["learning_rate"] > 0
    assert http.get("/v1/jobs").json()["data"] == []


def test_the_same_idempotency_key_makes_one_job(http: httpx.Client) -> None:
    spec = {"method": "pca", "dataset": upload(http)["id"]}

    def post(seed: int) -> httpx.Response:
        return http.post("/v1/jobs", json={**spec, "seed": seed}, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(post, [0] * 12))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = post(1)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert len(http.get("/v1/jobs").json()["data"]) == 1


def test_lists_have_stable_pages_and_filters(http: httpx.Client, service: Service) -> None:
    dataset = upload(http)["id"]
    ids = [submit(http, dataset, metadata={"group": str(index % 2), 'odd "key"': "é"})["id"] for index in range(7)]
    seen, after = [], None
    while True:
        page = http.get("/v1/jobs", params={"limit": 3, **({"after": after} if after else {})}).json()
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert seen == ids[::-1]
    assert [job["id"] for job in http.get("/v1/jobs", params={"order": "asc"}).json()["data"]] == ids
    odd = http.get("/v1/jobs", params={"metadata[group]": "1", "order": "asc"}).json()["data"]
    assert [job["id"] for job in odd] == ids[1::2]
    assert len(http.get("/v1/jobs", params={'metadata[odd "key"]': "é"}).json()["data"]) == 7
    work(service, ids[0])
    running = http.get("/v1/jobs", params={"status": "running"}).json()["data"]
    assert [job["id"] for job in running] == ids[:1]
    assert len(http.get("/v1/jobs?status=running&status=queued").json()["data"]) == 7
    assert http.get("/v1/jobs", params={"method": "word2vec"}).json()["data"] == []
    assert http.get("/v1/jobs", params={"after": "job-unknown"}).status_code == 404


def test_cancel_and_retry_know_the_right_moment(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    too_early = http.post(f"/v1/jobs/{job_id}/retry")
    assert (too_early.status_code, too_early.headers["x-should-retry"]) == (409, "false")
    assert "queued" in too_early.json()["error"]["message"]
    assert http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    assert http.post(f"/v1/jobs/{job_id}/cancel").status_code == 409
    assert http.post(f"/v1/jobs/{job_id}/retry").json()["status"] == "queued"
    worker = work(service, job_id)
    asked = http.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (asked["status"], asked["cancel_requested"]) == ("running", True)
    assert worker.progress(1, 10)
    files = worker.publish_files({"model.safetensors": b"w"})
    with service.database.write() as session:
        publishing.cancel_running_job(session, worker.claim, files=files, metrics={})
    assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
    assert http.get(f"/v1/jobs/{job_id}/weights").content == b"w"


def test_pause_and_resume_know_the_right_moment(http: httpx.Client, service: Service) -> None:
    dataset = upload(http)["id"]
    job_id = submit(http, dataset)["id"]
    too_early = http.post(f"/v1/jobs/{job_id}/resume")
    assert (too_early.status_code, too_early.headers["x-should-retry"]) == (409, "false")
    assert "queued" in too_early.json()["error"]["message"]
    job = http.post(f"/v1/jobs/{job_id}/pause").json()
    assert (job["status"], job["waiting"]) == ("paused", None)
    assert "paused" in http.post(f"/v1/jobs/{job_id}/pause").json()["error"]["message"]
    (listed,) = http.get("/v1/jobs", params={"status": "paused"}).json()["data"]
    assert listed["id"] == job_id
    assert http.post(f"/v1/jobs/{job_id}/resume").json()["status"] == "queued"
    worker = work(service, job_id)
    job = http.post(f"/v1/jobs/{job_id}/pause").json()
    assert (job["status"], job["pause_requested"]) == ("running", True)
    assert worker.progress(1, 10) == "pause"
    with service.database.write() as session:
        attempts.release_job(session, worker.claim)
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["pause_requested"], job["attempt"]) == ("paused", False, 0)
    assert job["attempts"][0]["outcome"] == "paused"
    assert http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    assert "cancelled" in http.post(f"/v1/jobs/{job_id}/pause").json()["error"]["message"]


def test_a_failed_job_shows_its_error(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    with service.database.write() as session:
        attempts.fail_job(session, worker.claim, InvalidData(Problem("line 3", "is odd")), is_retryable=False)
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "failed"
    assert job["error"]["problems"] == [{"where": "line 3", "what": "is odd"}]
    assert job["error"]["code"] == "invalid_data"


def test_metrics_are_series_and_logs_are_lines(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    worker = work(service, job_id)
    losses = [100.0 if step == 333 else float("nan") if step == 900 else 1 / (step + 1) for step in range(1000)]
    events = [NewEvent("metrics", data={"step": step, "values": {"loss": loss}}) for step, loss in enumerate(losses)]
    events += [NewEvent("metrics", data={"step": 999, "values": {"accuracy": 0.5}})]
    events += [NewEvent("log", f"line {index}", data={"attempt": 1}) for index in range(5)]
    worker.emit(*events, publish=False)
    address = f"/v1/jobs/{job_id}/metrics"
    whole = http.get(address).json()
    assert whole["downsampling"] is None
    loss = next(series for series in whole["series"] if series["name"] == "loss")
    assert loss["steps"] == list(range(1000))
    assert loss["values"][900] is None
    thin = http.get(address, params={"max_points": 20, "names": "loss"}).json()
    assert thin["downsampling"] == "min_max"
    (loss,) = thin["series"]
    assert len(loss["steps"]) <= 20
    assert loss["points"] == 1000
    assert 100.0 in loss["values"]
    assert (loss["steps"][0], loss["steps"][-1]) == (0, 999)
    late = http.get(address, params={"since_step": 998}).json()["series"]
    assert {series["name"]: series["steps"] for series in late} == {"loss": [998, 999], "accuracy": [999]}
    table = http.get(address, headers={"accept": "text/csv"}, params={"since_step": 998})
    assert table.headers["content-type"].startswith("text/csv")
    assert table.text.splitlines()[0] == "step,loss,accuracy"
    assert table.text.splitlines()[2] == "999,0.001,0.5"
    page = http.get(f"/v1/jobs/{job_id}/logs", params={"limit": 3}).json()
    assert [line["line"] for line in page["data"]] == ["line 0", "line 1", "line 2"]
    assert page["has_more"]
    rest = http.get(f"/v1/jobs/{job_id}/logs", params={"after": page["last_id"], "attempt": 1}).json()
    assert [line["line"] for line in rest["data"]] == ["line 3", "line 4"]
    assert http.get(f"/v1/jobs/{job_id}/logs", params={"attempt": 2}).json()["data"] == []
    printed = http.get(f"/v1/jobs/{job_id}/logs", headers={"accept": "text/plain"})
    assert printed.text == "".join(f"line {index}\n" for index in range(5))


def test_what_a_later_attempt_measures_replaces_the_lost_steps(http: httpx.Client, service: Service) -> None:
    job_id = submit(http, upload(http)["id"])["id"]
    first = work(service, job_id)
    first.emit(*(NewEvent("metrics", data={"step": step, "values": {"loss": 9.0}}) for step in range(1, 6)))
    with service.database.write() as session:
        attempts.release_job(session, first.claim)
    second = work(service, job_id)
    second.emit(*(NewEvent("metrics", data={"step": step, "values": {"loss": 1.0}}) for step in (3, 4)))
    (loss,) = http.get(f"/v1/jobs/{job_id}/metrics").json()["series"]
    assert list(zip(loss["steps"], loss["values"], strict=True)) == [(1, 9.0), (2, 9.0), (3, 1.0), (4, 1.0)]
