"""Jobs of the fine-tuning API: asked for and answered in its words, and the same jobs as at /v1/jobs."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from core.data.examples import write_preferences
from core.errors import InvalidData
from core.jobs import attempts
from core.jobs.events import NewEvent
from tests.api.service import Service, sse, submit, upload, work
from tests.tiny_llama import conversations, llama_zip

JOBS = "/v1/fine_tuning/jobs"
RESULTS = b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,2.5,0.25,,\n"


@pytest.fixture
def base(http: httpx.Client) -> str:
    return upload(http, llama_zip(), name="tiny-llama.zip", purpose="base-model")["id"]


@pytest.fixture
def data(http: httpx.Client) -> str:
    return upload(http, conversations(), name="data.jsonl", purpose="fine-tune")["id"]


@pytest.fixture
def asked(base: str, data: str) -> dict[str, Any]:
    return {"model": "tiny-llama", "training_file": data}


def create(http: httpx.Client, asked: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = http.post(JOBS, json={**asked, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def spec_of(http: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    return http.get(f"/v1/jobs/{job['id']}").json()["spec"]


def test_what_is_left_out_is_made_up_and_answered(http: httpx.Client, asked: dict[str, Any], base: str) -> None:
    job = create(http, asked)
    assert (job["object"], job["status"], job["model"]) == ("fine_tuning.job", "queued", "tiny-llama")
    numbers = {"n_epochs": 8, "batch_size": 1, "learning_rate_multiplier": 0.66}  # 12 examples; the base is 16 wide
    assert job["hyperparameters"] == numbers == job["method"]["supervised"]["hyperparameters"]
    assert (
        job["error"]
        is job["finished_at"]
        is job["fine_tuned_model"]
        is job["metadata"]
        is job["trained_tokens"]
        is None
    )
    assert job["result_files"] == []
    other = create(http, asked)
    assert other["id"] != job["id"]
    assert other["seed"] != job["seed"]
    spec = spec_of(http, job)
    assert (spec["task"], spec["strategy"], spec["base"], spec["seed"]) == ("chat", "lora", base, job["seed"])
    assert (spec["epochs"], spec["batch_size"], spec["learning_rate"], spec["packing"]) == (
        8,
        1,
        pytest.approx(2e-4 * 0.66),
        False,
    )
    assert http.get(f"{JOBS}/{job['id']}").json() == job


def test_what_is_given_is_kept(http: httpx.Client, asked: dict[str, Any], data: str) -> None:
    numbers = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.5}
    told = {"seed": 42, "suffix": "mine", "metadata": {"team": "a"}, "validation_file": data}
    native = {"strategy": "full", "max_length": 64, "priority": 3, "packing": True, "weight_decay": 0.0}
    job = create(http, asked, hyperparameters=numbers, **told, **native)
    assert job["hyperparameters"] == job["method"]["supervised"]["hyperparameters"] == numbers
    assert {name: job[name] for name in ("seed", "metadata", "validation_file")} == {
        name: told[name] for name in ("seed", "metadata", "validation_file")
    }
    spec = spec_of(http, job)
    assert {name: spec[name] for name in native} == native
    assert (spec["epochs"], spec["name"], spec["learning_rate"]) == (2, "mine", pytest.approx(3e-5))


def test_preferences_have_a_beta(http: httpx.Client, asked: dict[str, Any], tmp_path: Path) -> None:
    write_preferences(tmp_path / "pairs.jsonl", count=120)
    pairs = upload(http, (tmp_path / "pairs.jsonl").read_bytes(), name="pairs.jsonl", purpose="fine-tune")["id"]
    dpo = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5, "n_epochs": "auto"}}}
    job = create(http, {**asked, "training_file": pairs}, method=dpo)
    numbers = job["method"]["dpo"]["hyperparameters"]
    assert (numbers["beta"], numbers["n_epochs"], job["method"]["supervised"]) == (0.5, 1, None)
    spec = spec_of(http, job)
    assert (spec["task"], spec["beta"], spec["epochs"]) == ("preference", 0.5, 1)


def test_reinforcement_has_a_grader(http: httpx.Client, asked: dict[str, Any]) -> None:
    grader = {
        "type": "string_check",
        "name": "right",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.answer }}",
        "operation": "eq",
    }
    lines = [{"messages": [{"role": "user", "content": f"say {number}"}], "answer": str(number)} for number in range(9)]
    content = "\n".join(map(json.dumps, lines)).encode()
    prompts = upload(http, content, name="prompts.jsonl", purpose="fine-tune")["id"]
    numbers = {"n_epochs": 2, "compute_multiplier": 0.5, "eval_interval": 3}
    told = {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": numbers}}
    native = {"max_completion_tokens": 16, "validation_fraction": 0.2}
    job = create(http, {**asked, "training_file": prompts}, method=told, **native)
    learned = job["method"]["reinforcement"]
    assert learned["grader"] == grader
    assert learned["hyperparameters"].items() >= {**numbers, "eval_samples": 1, "batch_size": 1}.items()
    spec = spec_of(http, job)
    assert (spec["task"], spec["grader"], spec["group_size"], spec["evaluate_every"]) == ("reinforcement", grader, 4, 3)
    assert (spec["max_completion_tokens"], spec["beta"]) == (16, 0.04)
    nearer = create(http, {**asked, "training_file": prompts}, method=told, beta=0.5, **native)
    assert spec_of(http, nearer)["beta"] == 0.5
    assert "beta" not in nearer["method"]["reinforcement"]["hyperparameters"]
    error = http.post(JOBS, json={**asked, "training_file": prompts, "method": told}).json()["error"]
    assert error["param"] == "method.reinforcement.hyperparameters.eval_interval"
    assert "give validation_file, too" in error["message"]
    del grader["operation"]
    error = http.post(JOBS, json={**asked, "method": told}).json()["error"]
    assert error["param"].startswith("method.reinforcement.grader")
    assert "operation" in error["param"]


MISTAKES: list[tuple[dict[str, Any], str | None, str]] = [
    ({"max_lenght": 64}, "max_lenght", "did you mean max_length?"),
    ({"epochs": 3}, "epochs", "it is said by n_epochs here"),
    ({"model": "unheard-of"}, "model", "there is no model 'unheard-of'"),
    ({"training_file": "file-no"}, "training_file", "there is no file 'file-no'"),
    ({"validation_file": "file-no"}, "validation_file", "there is no file 'file-no'"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "a"}}]}, "integrations", "no integration is served"),
    ({"suffix": "x" * 65}, "suffix", "at most 64"),
    ({"model": "a\0b"}, "model", "should match pattern"),
    ({"seed": 2**31}, "seed", "less than 2147483648"),
    ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "'auto' or Input should be less than"),
    ({"hyperparameters": {"batch_size": "8"}}, "hyperparameters.batch_size", "a valid integer"),
    ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}}, "method.dpo.hyperparameters.beta", ""),
    ({"method": {"type": "dpo"}, "beta": 0.2}, "beta", "it is said by method.dpo.hyperparameters.beta here"),
    ({"beta": 0.2}, None, "beta would have no effect: the task is chat"),
    ({"beta": -1}, "beta", "greater than or equal to 0"),
    ({"method": {"type": "dpo", "supervised": {}}}, "method", "supervised would have no effect"),
    ({"method": {"type": "reinforcement"}}, "method", "needs a grader"),
    ({"method": {"type": "dpo"}}, "method.type", "did you mean chat"),
    ({"method": {"type": "dpo"}, "hyperparameters": {}}, None, "within method.dpo"),
    ({"lora": {"rank": 0}}, "lora.rank", "greater than or equal to 1"),
    ({"strategy": "full", "lora": {"rank": 4}}, None, "lora would have no effect"),
    ({"model": "x", "validation_fraction": 0.6}, "validation_fraction", "less than or equal to 0.5"),
]


def test_a_mistake_is_told_by_the_name_that_was_used(http: httpx.Client, asked: dict[str, Any]) -> None:
    for changes, param, told in MISTAKES:
        answer = http.post(JOBS, json={**asked, **changes})
        error = answer.json()["error"]
        assert answer.status_code in (404, 422), error
        assert (error["param"], told in error["message"]) == (param, True), error


def test_a_repeat_finds_the_job_that_the_first_made(http: httpx.Client, asked: dict[str, Any]) -> None:
    first = create(http, asked)
    repeat = http.post(JOBS, json=asked, headers={"x-stainless-retry-count": "1"}).json()
    assert (repeat["id"], repeat["seed"]) == (first["id"], first["seed"])
    named = {"idempotency-key": "mine"}
    again = [http.post(JOBS, json=asked, headers=named).json()["id"] for _ in range(2)]
    assert again[0] == again[1] != first["id"]
    assert http.post(JOBS, json={**asked, "seed": 3}, headers=named).status_code == 409


def test_lists_are_by_metadata_and_hold_native_jobs(http: httpx.Client, asked: dict[str, Any], base: str) -> None:
    plain = create(http, asked)["id"]
    marked = create(http, asked, metadata={"team": "a", "empty": ""})["id"]
    spec = {"method": "fine_tuning", "task": "chat", "base": base, "dataset": asked["training_file"]}
    native = http.post("/v1/jobs", json={**spec, "strategy": "lora", "learning_rate": 4e-4, "epochs": 2}).json()["id"]
    submit(http, upload(http)["id"])

    def listed(**wanted: Any) -> list[str]:
        return [job["id"] for job in http.get(JOBS, params=wanted).json()["data"]]

    assert listed() == listed(limit=1000) == [native, marked, plain]
    assert listed(limit=1, after=native) == [marked]
    assert listed(**{"metadata[team]": "a", "metadata[empty]": ""}) == [marked]
    assert listed(**{"metadata[team]": "b"}) == []
    assert listed(metadata="null") == [native, plain]
    shown = http.get(f"{JOBS}/{native}").json()
    assert shown["model"] == base
    assert shown["hyperparameters"] == {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 2.0}


def test_jobs_are_paused_resumed_and_cancelled(http: httpx.Client, asked: dict[str, Any]) -> None:
    job = create(http, asked)["id"]
    assert [http.post(f"{JOBS}/{job}/{change}").json()["status"] for change in ("pause", "resume", "cancel")] == [
        "paused",
        "queued",
        "cancelled",
    ]
    late = http.post(f"{JOBS}/{job}/pause")
    assert (late.status_code, late.headers["x-should-retry"]) == (409, "false")
    other = submit(http, upload(http)["id"])["id"]
    for call in (http.get(f"{JOBS}/{other}"), http.post(f"{JOBS}/{other}/cancel"), http.get(f"{JOBS}/{other}/events")):
        assert (call.status_code, call.json()["error"]["param"]) == (404, "job_id")


def test_a_change_whose_answer_was_lost_may_be_sent_again(http: httpx.Client, asked: dict[str, Any]) -> None:
    job = create(http, asked)["id"]
    for change, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        for count in ("0", "1"):
            answer = http.post(f"{JOBS}/{job}/{change}", headers={"x-stainless-retry-count": count})
            assert (answer.status_code, answer.json().get("status")) == (200, status)
        assert http.post(f"{JOBS}/{job}/{change}").status_code == 409
    assert http.post(f"{JOBS}/{job}/resume", headers={"x-stainless-retry-count": "1"}).status_code == 409


def test_events_are_in_its_words_newest_first_or_as_a_stream(
    service: Service, http: httpx.Client, asked: dict[str, Any]
) -> None:
    job = create(http, asked)["id"]
    worker = work(service, job)
    worker.progress(1, 10)
    worker.emit(
        NewEvent("metrics", data={"step": 1, "values": {"loss": 2.5, "valid_loss": 2.0, "valid_token_accuracy": 0.5}})
    )
    kept = {"step": 1, "bytes": 1, "sha256": "0"}
    shown = {**kept, "name": "answers", "media_type": "text/plain", "path": "answers-1.txt"}
    worker.emit(
        NewEvent("checkpoint", data={**kept, "id": "ckpt-1"}),
        NewEvent("sample", "after training", data=shown),
        NewEvent("log", "not for everyone"),
        NewEvent("message", "look out", "warn"),
    )
    running = http.get(f"{JOBS}/{job}").json()
    assert running["status"] == "running"
    assert running["estimated_finish"] == pytest.approx(time.time() + 0.9, abs=60)  # 9 steps, 10 a second
    page = http.get(f"{JOBS}/{job}/events", params={"limit": 4}).json()
    warning, sample, checkpoint, metrics = page["data"]
    assert (warning["type"], warning["level"], warning["message"]) == ("message", "warn", "look out")
    assert (metrics["type"], metrics["message"]) == (
        "metrics",
        "Step 1/10: training loss=2.5000, validation loss=2.0000",
    )
    assert (checkpoint["message"], sample["message"]) == (
        "Checkpoint created at step 1",
        "Step 1: answers after training",
    )
    assert metrics["data"] == {
        "step": 1, "total_steps": 10, "train_loss": 2.5, "valid_loss": 2.0, "valid_mean_token_accuracy": 0.5
    }  # fmt: skip
    assert metrics["id"] == f"ftevent-{job.removeprefix('job-')}-1-2"
    assert page["has_more"]
    rest = http.get(f"{JOBS}/{job}/events", params={"after": metrics["id"]}).json()["data"]
    assert [event["data"]["status"] for event in rest] == ["running", "queued"]
    assert http.get(f"{JOBS}/{job}/events", params={"after": "ftevent-no"}).status_code == 400
    worker.succeed()
    both = [("accept", "application/json"), ("accept", "text/event-stream")]  # as version 1 of the openai client has it
    for options in ({"params": {"stream": "true"}}, {"headers": {"accept": "text/event-stream"}}, {"headers": both}):
        with http.stream("GET", f"{JOBS}/{job}/events", **options) as answer:
            told = list(sse(answer.iter_lines()))
        assert [data["id"] for _, _, data in told[:-1]] == [id for id, _, _ in told[:-1]]
        assert [event for _, event, _ in told] == ["message", "message", "metrics", *["message"] * 4, ""]
        assert told[2][2] == metrics
        assert told[-1][2] == "[DONE]"
    with http.stream("GET", f"{JOBS}/{job}/events?stream=true", headers={"last-event-id": told[2][0]}) as answer:
        assert list(sse(answer.iter_lines())) == told[3:]


def test_what_succeeded_has_a_name_and_results(service: Service, http: httpx.Client, asked: dict[str, Any]) -> None:
    job = create(http, asked, suffix="mine")["id"]
    worker = work(service, job)
    with zipfile.ZipFile(io.BytesIO(llama_zip())) as archive:
        files = {path.rpartition("/")[2]: archive.read(path) for path in archive.namelist()}
    model_id = worker.succeed({**files, "step_metrics.csv": RESULTS}, trained_tokens=1234.0)
    ended = http.get(f"{JOBS}/{job}").json()
    name = ended["fine_tuned_model"]
    project = http.get("/v1/projects").json()["data"][0]["name"]
    assert name == f"ft:tiny-llama:{project}:mine:{job.removeprefix('job-')}"
    assert (ended["status"], ended["trained_tokens"]) == ("succeeded", 1234)
    (results,) = ended["result_files"]
    assert http.get(f"/v1/files/{results}").json()["purpose"] == "fine-tune-results"
    assert http.get(f"/v1/files/{results}/content").content == RESULTS
    as_data = http.post(JOBS, json={**asked, "training_file": results})
    assert "of purpose 'fine-tune-results', not a data set" in as_data.json()["error"]["message"]
    again = create(http, {**asked, "model": name}, suffix="more")
    assert (again["model"], spec_of(http, again)["base"]) == (name, model_id)
    http.post(f"{JOBS}/{again['id']}/cancel")
    spec = {"method": "fine_tuning", "task": "chat", "base": name, "dataset": asked["training_file"]}
    native = [http.post("/v1/jobs", json=spec), http.post("/v1/pipelines", json={"jobs": {"one": spec}})]
    assert [answer.status_code for answer in native] == [202, 202], native[0].text
    assert [one["spec"]["base"] for one in (native[0].json(), native[1].json()["jobs"]["one"])] == [model_id] * 2
    assert http.post("/v1/jobs/preview?measure=false", json=spec).json()["spec"]["base"] == model_id
    unknown = http.post("/v1/jobs", json={**spec, "base": f"{name}x"})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "base")
    http.delete(f"/v1/files/{results}").raise_for_status()
    assert http.get(f"{JOBS}/{job}").json()["result_files"] == []


def test_models_answer_to_their_names(service: Service, http: httpx.Client, asked: dict[str, Any], base: str) -> None:
    job = create(http, asked)["id"]
    model_id = work(service, job).succeed()
    name = http.get(f"{JOBS}/{job}").json()["fine_tuned_model"]
    shown = http.get(f"/v1/models/{name}").json()
    assert (shown["id"], shown["job"], shown["object"]) == (name, job, "model")
    assert http.get(f"/v1/models/{quote(name, safe='')}").json() == http.get(f"/v1/models/{model_id}").json() == shown
    assert http.get("/v1/models/tiny-llama").json()["id"] == base
    listed = [model["id"] for model in http.get("/v1/models").json()["data"]]
    assert listed == [name, base]
    assert [model["id"] for model in http.get("/v1/models", params={"after": name}).json()["data"]] == [base]
    assert http.get("/v1/models/no/such").json()["error"]["param"] == "model_id"
    assert http.delete(f"/v1/models/{name}").json() == {"id": name, "object": "model", "deleted": True}
    assert http.get(f"/v1/models/{name}").status_code == 404
    assert http.get(f"{JOBS}/{job}").json()["fine_tuned_model"] == name, (
        "what it made has a name, if not there any more"
    )


def test_data_that_the_base_cannot_learn_from_is_refused_by_line(http: httpx.Client, asked: dict[str, Any]) -> None:
    lines = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho" * length}]}
             for length in (1, 200)]  # fmt: skip
    content = "\n".join(map(json.dumps, lines)).encode()
    long = upload(http, content, name="long.jsonl", purpose="fine-tune")["id"]
    for field in ("training_file", "validation_file"):
        answer = http.post(JOBS, json={**asked, field: long})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (422, field)
        assert [problem["where"] for problem in error["problems"]] == ["line 2"]
    assert create(http, {**asked, "training_file": long}, too_long="cut")["status"] == "queued"


def test_rows_are_packed_where_a_batch_fills_some(http: httpx.Client, asked: dict[str, Any]) -> None:
    many = {"n_epochs": 1, "batch_size": 12, "learning_rate_multiplier": 1.0}
    spec = spec_of(http, job := create(http, asked, hyperparameters=many, max_length=100))
    assert spec["packing"]
    assert 2 <= spec["batch_size"] < 12 == job["hyperparameters"]["batch_size"]
    unpacked = spec_of(http, create(http, asked, hyperparameters=many, max_length=100, packing=False))
    assert (unpacked["packing"], unpacked["batch_size"]) == (False, 12)


def test_all_models_come_at_once_as_the_client_wants_them(http: httpx.Client) -> None:
    made = [upload(http, llama_zip(), name=f"llama-{number}.zip", purpose="base-model")["id"] for number in range(21)]
    page = http.get("/v1/models").json()
    assert ([model["id"] for model in page["data"]], page["has_more"]) == (made[::-1], False)


def test_a_job_that_failed_says_why(service: Service, http: httpx.Client, asked: dict[str, Any]) -> None:
    job = create(http, asked)["id"]
    worker = work(service, job)
    with service.database.write() as session:
        attempts.fail_job(session, worker.claim, InvalidData("too short", param="dataset"), is_retryable=False)
    failed = http.get(f"{JOBS}/{job}").json()
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "invalid_data", "message": "too short", "param": "training_file"}
