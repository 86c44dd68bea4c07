"""Graders tried out over HTTP, as `client.fine_tuning.alpha.graders` does it."""

from __future__ import annotations

import random
import time
from typing import Any

import httpx
import pytest

from core.graders import LONGEST
from core.graders.similarity import fuzzy_match
from tests.api.service import Service

CALLS = "/v1/fine_tuning/alpha/graders"
CHECK = {
    "type": "string_check",
    "name": "exact",
    "input": "{{ sample.output_json.said }}",
    "reference": "{{ item.reference_answer }}",
    "operation": "ilike",
}
BOTH = {
    "type": "multi",
    "name": "both",
    "graders": {
        "exact": CHECK,
        "near": {**CHECK, "type": "text_similarity", "evaluation_metric": "fuzzy_match"},
    },
    "calculate_output": "0.5 * exact / near",
}
del BOTH["graders"]["near"]["operation"]  # type: ignore[index]


def run(http: httpx.Client, grader: dict[str, Any], sample: str, **item: Any) -> dict[str, Any]:
    answer = http.post(f"{CALLS}/run", json={"grader": grader, "model_sample": sample, "item": item})
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def test_a_grader_is_run(http: httpx.Client) -> None:
    found = run(http, BOTH, '{"said": "It is B."}', reference_answer="it is b")
    assert found["reward"] == 0.5
    assert found["sub_rewards"] == found["metadata"]["scores"] == {"exact": 1.0, "near": 1.0}
    assert (found["metadata"]["name"], found["metadata"]["type"]) == ("both", "multi")
    assert not any(found["metadata"]["errors"].values())
    assert 0 < found["metadata"]["execution_time"] < 10


@pytest.mark.parametrize(
    ("sample", "item", "error", "details"),
    [
        ("not JSON", {"reference_answer": "b"}, "sample_parse_error", "'sample.output_json.said' is not there"),
        ('{"said": "b"}', {}, "invalid_variable_error", "'item.reference_answer' is not there"),
        ('{"said": "b"}', {"reference_answer": "xyz"}, "other_error", "division by zero in '0.5 * exact / near'"),
    ],
)
def test_what_cannot_be_graded_says_why(
    sample: str, item: dict[str, Any], error: str, details: str, http: httpx.Client
) -> None:
    found = run(http, BOTH, sample, **item)
    assert found["reward"] == 0
    errors = found["metadata"]["errors"]
    assert [name for name, value in errors.items() if value is True] == [error]
    assert details in errors["other_error_details"]


def test_a_sound_grader_is_answered_as_it_was_sent(http: httpx.Client) -> None:
    for grader in (CHECK, BOTH, {**BOTH, "graders": CHECK, "calculate_output": "exact ^ 2"}):
        assert http.post(f"{CALLS}/validate", json={"grader": grader}).json() == {"grader": grader}


@pytest.mark.parametrize(
    ("grader", "param", "message"),
    [
        ({**BOTH, "calculate_output": "exact + other"}, "grader", "names 'other', and there are only the graders"),
        ({**CHECK, "input": "{{ answer }}"}, "input", "names nothing"),
        ({"type": "python", "name": "a", "source": "import os"}, "grader", "this server runs no code"),
        ({"type": "score_model", "name": "a", "model": "m", "input": []}, "grader", "asks no other model"),
        ({**BOTH, "graders": {"near": {"type": "python"}}}, "near", "this server runs no code"),
    ],
)
def test_an_unsound_grader_is_told_so(grader: dict[str, Any], param: str, message: str, http: httpx.Client) -> None:
    for call, more in (("validate", {}), ("run", {"model_sample": "a"})):
        answer = http.post(f"{CALLS}/{call}", json={"grader": grader, **more})
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert message in error["message"]
        assert param in error["param"]


def test_what_is_too_long_is_refused(http: httpx.Client) -> None:
    answer = http.post(f"{CALLS}/run", json={"grader": CHECK, "model_sample": "a" * 100_001})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "model_sample"
    many = {**CHECK, "reference": "{{ item.long }}" * 6000}
    errors = run(http, many, '{"said": ""}', long="a" * 100_000)["metadata"]["errors"]
    assert errors["other_error"]
    assert "more than 100,000 characters" in errors["other_error_details"]


def test_what_takes_long_to_compare_does_not_hold_up_the_server(service: Service, http: httpx.Client) -> None:
    digits = random.Random(0).choices("0123456789", k=2 * LONGEST)
    sample, reference = "".join(digits[:LONGEST]), "".join(digits[LONGEST:])
    began = time.process_time()
    fuzzy_match(sample, reference)
    needed = time.process_time() - began
    near: dict[str, Any] = {**BOTH["graders"]["near"], "input": "{{ sample.output_text }}"}  # type: ignore[index]
    before = service.api.process.cpu_times().user
    assert 0 < run(http, near, sample, reference_answer=reference)["reward"] < 1
    assert service.api.process.cpu_times().user - before < needed / 2
