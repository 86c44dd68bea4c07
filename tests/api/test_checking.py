"""Conversations and pairs are read with the base's tokenizer before a job is written, and refused by line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.api.service import Service, new_project, serving, upload, work
from tests.tiny_llama import CONTEXT, write_tiny_llama, zipped


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("api"), redis_url, 1) as service:
        yield service


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with service.client(new_project(service)) as client:
        client.timeout = httpx.Timeout(120)  # the process that checks starts with the first of them
        yield client


@pytest.fixture(scope="module")
def base(http: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_tiny_llama(tmp_path_factory.mktemp("llama"))
    return str(upload(http, zipped(folder), name="tiny.zip", purpose="base-model")["id"])


def chat(asked: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer, **more}]}


def pair(asked: str, better: str, worse: str) -> dict[str, Any]:
    return {"prompt": asked, "chosen": better, "rejected": worse}


def send(http: httpx.Client, values: Sequence[Any]) -> str:
    return str(upload(http, "".join(json.dumps(value) + "\n" for value in values).encode(), name="data.jsonl")["id"])


def spec(base: Any, dataset: str, **changes: Any) -> dict[str, Any]:
    return {"method": "fine_tuning", "task": "chat", "base": base, "dataset": dataset, **changes}


def refused(http: httpx.Client, body: Mapping[str, Any], path: str = "/v1/jobs") -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 422, answer.text
    return answer.json()["error"]


def count_jobs(http: httpx.Client) -> int:
    return len(http.get("/v1/jobs?limit=100").json()["data"])


GOOD = [chat(f"What is {number}?", f"It is {number}.") for number in range(20)]


def test_all_that_is_wrong_is_told_by_line_and_no_job_is_written(http: httpx.Client, base: str) -> None:
    silent = {"messages": [{"role": "user", "content": "Hello?"}]}
    first = {"messages": [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Hello."}]}
    long = chat("x" * 100, "y" * 100)
    bad = [*GOOD, silent, chat("Hello?", "Hello!", weight=0), first, long]
    before = count_jobs(http)
    for path in ("/v1/jobs", "/v1/jobs/preview"):
        error = refused(http, spec(base, send(http, bad)), path)
        assert [error["param"], error["code"]] == ["dataset", "invalid_data"]
        told = {problem["where"]: problem["what"] for problem in error["problems"]}
        assert list(told) == [f"line {number}" for number in range(21, 25)]
        assert "no message is of role assistant" in told["line 21"]
        assert "weight 0" in told["line 22"]
        assert "speaks first" in told["line 23"]
        tokens = 200 + 4 + len("user\n\nassistant\n\n")  # a byte is a token, and so is each mark
        assert f"it has {tokens} tokens, and {CONTEXT} fit (as many as the base takes)" in told["line 24"]
    pipeline = {"jobs": {"tune": spec(base, send(http, bad))}}
    error = refused(http, pipeline, "/v1/pipelines")
    assert error["param"] == "jobs.tune.dataset"
    assert len(error["problems"]) == 4
    assert count_jobs(http) == before


def test_long_ones_are_cut_where_the_spec_says_so(http: httpx.Client, base: str) -> None:
    dataset = send(http, [*GOOD, chat("x" * 100, "y" * 100)])
    assert "64 fit (max_length)" in refused(http, spec(base, dataset, max_length=64))["message"]
    assert http.post("/v1/jobs", json=spec(base, dataset, too_long="cut")).status_code == 202
    error = refused(http, spec(base, dataset, max_length=CONTEXT + 1))
    assert [error["param"], error["code"]] == ["max_length", "invalid_spec"]


def test_many_copies_are_refused_and_few_are_told(http: httpx.Client, base: str) -> None:
    error = refused(http, spec(base, send(http, [*GOOD, *GOOD[:2]])))
    assert [problem["where"] for problem in error["problems"]] == ["line 21", "line 22"]
    assert "the same as line 1; 2 of 22 examples are copies" in error["problems"][0]["what"]
    kept = http.post("/v1/jobs", json=spec(base, send(http, [*GOOD, *GOOD[:2]]), duplicates="keep"))
    few = http.post("/v1/jobs", json=spec(base, send(http, [*GOOD, GOOD[3]])))
    assert "2 of 22 examples" in warnings_of(http, kept.json()["id"])[0]
    assert "1 of 21 examples are exact copies" in warnings_of(http, few.json()["id"])[0]


def warnings_of(http: httpx.Client, job_id: str) -> list[str]:
    events = http.get(f"/v1/jobs/{job_id}/events?order=asc").json()["data"]
    assert events[0]["type"] == "status"
    assert [event["id"] for event in events] == [f"0-{number}" for number in range(1, len(events) + 1)]
    return [event["message"] for event in events if (event["type"], event["level"]) == ("message", "warn")]


def test_what_is_validated_on_and_learned_from_is_told_at_the_start_of_the_job(
    service: Service, http: httpx.Client, base: str
) -> None:
    dataset, validation = send(http, GOOD), send(http, [GOOD[4], chat("New?", "New."), GOOD[7]])
    body = spec(base, dataset, validation=validation)
    told = "2 of 3 validation examples also stand in the data set: line 1, line 3 of the validation file"
    assert told in http.post("/v1/jobs/preview?measure=false", json=body).json()["warnings"][0]
    job = http.post("/v1/jobs", json=body).json()
    pipeline = http.post("/v1/pipelines", json={"jobs": {"tune": body}}).json()
    for job_id in (job["id"], pipeline["jobs"]["tune"]["id"]):
        assert told in warnings_of(http, job_id)[0]
    work(service, job["id"])
    events = http.get(f"/v1/jobs/{job['id']}/events?order=asc").json()["data"]
    assert [event["id"] for event in events] == ["0-1", "0-2", "1-1"]


def test_a_repeat_finds_its_job_though_the_data_would_be_refused_by_now(http: httpx.Client, base: str) -> None:
    dataset = send(http, GOOD)
    key = {"idempotency-key": "once"}
    first = http.post("/v1/jobs", json=spec(base, dataset), headers=key).json()
    assert http.post(f"/v1/jobs/{first['id']}/cancel").status_code == 200
    assert http.delete(f"/v1/files/{dataset}").status_code == 200
    again = http.post("/v1/jobs", json=spec(base, dataset), headers=key)
    assert again.json()["id"] == first["id"]
    other = http.post("/v1/jobs", json=spec(base, dataset))
    assert [other.status_code, other.json()["error"]["param"]] == [404, "dataset"]


def test_pairs(http: httpx.Client, base: str) -> None:
    pairs = [pair(f"Say {number}.", f"It is {number}.", "No.") for number in range(20)]
    silent = {"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": "c"}
    error = refused(http, spec(base, send(http, [*pairs, silent, pair("a", "b", "c" * 200)]), task="preference"))
    told = {problem["where"]: problem["what"] for problem in error["problems"]}
    assert "must be one message of role assistant" in told["line 21"]
    assert re.search(r"it has 2\d\d tokens, and 128 fit", told["line 22"])
    assert http.post("/v1/jobs", json=spec(base, send(http, pairs), task="preference")).status_code == 202


def test_data_of_another_method_names_the_one_to_use(http: httpx.Client, base: str) -> None:
    error = refused(http, spec(base, send(http, GOOD), task="preference"))
    assert "did you mean chat (supervised)" in error["message"]
    error = refused(http, spec(base, send(http, [pair("a", "b", "c")])))
    assert "did you mean preference (dpo)" in error["message"]
    error = refused(http, spec(base, send(http, GOOD), validation=send(http, [pair("a", "b", "c")])))
    assert error["param"] == "validation"


def test_without_a_base_only_what_needs_no_tokenizer_is_checked(http: httpx.Client, base: str) -> None:
    first = submit_chat(http, base)
    long = [*GOOD, chat("x" * 100, "y" * 100)]
    assert http.post("/v1/jobs", json=spec({"job": first}, send(http, long))).status_code == 202
    error = refused(http, spec({"job": first}, send(http, [*GOOD, *GOOD])))
    assert "20 of 40 examples are copies" in error["message"]
    stages = {"one": spec(base, send(http, GOOD)), "two": spec({"job": "one"}, send(http, [*GOOD, *GOOD]))}
    assert refused(http, {"jobs": stages}, "/v1/pipelines")["param"] == "jobs.two.dataset"
    stages["two"]["duplicates"] = "keep"
    assert http.post("/v1/pipelines", json={"jobs": stages}).status_code == 202


def submit_chat(http: httpx.Client, base: str) -> str:
    return str(http.post("/v1/jobs", json=spec(base, send(http, GOOD))).json()["id"])


def test_the_chat_template_refuses_by_line(http: httpx.Client, tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system role') }}"
        "{% endif %}{{ message['content'] + '</s>' }}{% endfor %}"
    )
    folder = write_tiny_llama(tmp_path / "strict", chat_template=template)
    base = upload(http, zipped(folder), name="strict.zip", purpose="base-model")["id"]
    ruled = {"messages": [{"role": "system", "content": "Be brief."}, *chat("a", "b")["messages"]]}
    error = refused(http, spec(base, send(http, [*GOOD, ruled])))
    assert "line 21: the base's chat template refuses it: no system role" in error["message"]


def test_a_base_that_reads_nothing_is_refused(http: httpx.Client, tmp_path: Path) -> None:
    folder = write_tiny_llama(tmp_path / "mute")
    (folder / "tokenizer.json").unlink()
    base = upload(http, zipped(folder), name="mute.zip", purpose="base-model")["id"]
    error = refused(http, spec(base, send(http, GOOD)))
    assert error["param"] == "base"
    assert "has no tokenizer" in error["message"]


def test_a_model_that_a_job_made_reads_as_it_was_left(
    service: Service, http: httpx.Client, base: str, tmp_path: Path
) -> None:
    folder = write_tiny_llama(tmp_path / "short", context=64)
    job = work(service, submit_chat(http, base))
    model = job.succeed({path.name: path.read_bytes() for path in folder.iterdir()})
    error = refused(http, spec(model, send(http, [*GOOD, chat("x" * 50, "y" * 50)])))
    assert "64 fit" in error["message"]


def test_prompts_are_checked_by_the_grader_of_each_submission(http: httpx.Client, base: str) -> None:
    prompts = [{"messages": one["messages"][:1], "answer": str(number)} for number, one in enumerate(GOOD)]
    del prompts[7]["answer"]
    dataset = send(http, prompts)
    grader = {"type": "string_check", "name": "same", "input": "{{sample.output_text}}", "operation": "eq"}
    learned = {"task": "reinforcement", "max_completion_tokens": 8}
    by_constant, by_answer = {**grader, "reference": "yes"}, {**grader, "reference": "{{item.answer}}"}
    made = http.post("/v1/jobs", json=spec(base, dataset, **learned, grader=by_constant))
    assert made.status_code == 202, made.text
    error = refused(http, spec(base, dataset, **learned, grader=by_answer))
    assert [problem["where"] for problem in error["problems"]] == ["line 8"]


def checker_of(service: Service) -> psutil.Process:
    return next(child for child in service.api.process.children() if "core.checking" in " ".join(child.cmdline()))


def test_one_projects_checks_hold_up_nobody_else(service: Service, http: httpx.Client, base: str) -> None:
    """The process that checks is stopped, and more is to be checked than there are threads for all requests."""
    known = spec(base, send(http, GOOD))
    assert http.post("/v1/jobs", json=known).status_code == 202
    new = [spec(base, send(http, [*GOOD, chat(f"New {number}?", "New.")])) for number in range(3)]
    paths = ("/v1/jobs", "/v1/jobs", "/v1/jobs/preview?measure=false", "/v1/pipelines")
    asked = [(paths[number % 4], new[number % 3]) for number in range(100)]
    checker = checker_of(service)
    with service.client(new_project(service)) as other, ThreadPoolExecutor(len(asked)) as threads:
        theirs = upload(other, http.get(f"/v1/files/{base}/content").content, name="tiny.zip", purpose="base-model")[
            "id"
        ]
        data = send(other, GOOD)
        checker.suspend()
        try:
            told = [
                threads.submit(http.post, path, json={"jobs": {"tune": body}} if "pipe" in path else body)
                for path, body in asked
            ]
            wait(told, timeout=1)
            assert other.get("/v1/jobs", timeout=60).status_code == 200
            assert other.post("/v1/jobs", json=spec(theirs, data), timeout=60).status_code == 202
        finally:
            checker.resume()
        assert {one.result().status_code for one in told} == {200, 202}


def test_a_prompt_that_leaves_no_room_is_taken_with_shorter_completions(http: httpx.Client, base: str) -> None:
    dataset = send(http, [{"messages": [{"role": "user", "content": "x" * 80 + str(number)}]} for number in range(3)])
    grader = {"type": "string_check", "name": "same", "input": "{{sample.output_text}}", "operation": "eq"}
    learned = {"task": "reinforcement", "grader": {**grader, "reference": "yes"}}
    assert (
        "less max_completion_tokens"
        in refused(http, spec(base, dataset, **learned, max_completion_tokens=64))["message"]
    )
    made = http.post("/v1/jobs", json=spec(base, dataset, **learned, max_completion_tokens=8))
    assert made.status_code == 202, made.text


def test_a_base_whose_template_fails_on_a_line_refuses_it(http: httpx.Client, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content + (m.name or '') + '</s>' }}{% endfor %}"
    folder = write_tiny_llama(tmp_path / "named", chat_template=template)
    base = upload(http, zipped(folder), name="named.zip", purpose="base-model")["id"]
    error = refused(http, spec(base, send(http, [*GOOD, chat("a", "b", name=5)])))
    assert [problem["where"] for problem in error["problems"]] == ["line 21"]


def test_what_was_checked_is_remembered(service: Service, http: httpx.Client, base: str) -> None:
    """The process that checks is stopped: whoever asked it would not be answered."""
    body = spec(base, send(http, [*GOOD, chat("Again?", "Again.")]))
    assert http.post("/v1/jobs", json=body).status_code == 202
    checker = checker_of(service)
    bad = {"jobs": {"tune": spec(base, send(http, [*GOOD, *GOOD]))}}
    error = refused(http, bad, "/v1/pipelines")
    checker.suspend()
    try:
        assert http.post("/v1/jobs", json={**body, "learning_rate": 0.5}).status_code == 202
        assert refused(http, bad, "/v1/pipelines") == error
        assert refused(http, bad["jobs"]["tune"])["param"] == "dataset"
    finally:
        checker.resume()
