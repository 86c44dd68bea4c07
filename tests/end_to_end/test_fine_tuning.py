"""A fine-tuning job as clients of the hosted API make it, trained by a real worker; and one that goes on from it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.service import sse, upload
from tests.conftest import Up
from tests.tiny_llama import conversations, llama_zip

JOBS = "/v1/fine_tuning/jobs"
HEADER = ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]


@pytest.fixture
def http(weightworks_up: Up) -> Iterator[httpx.Client]:
    told = json.loads((weightworks_up.home / "connection.json").read_text())
    headers = {"authorization": f"Bearer {told['api_key']}"}
    with httpx.Client(base_url=told["base_url"], headers=headers, timeout=120) as http:
        yield http


def ended(http: httpx.Client, job_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The job once it is over, and all its events."""
    with http.stream("GET", f"{JOBS}/{job_id}/events", params={"stream": "true"}) as answer:
        events = [data for _, _, data in sse(answer.iter_lines())]
    assert events.pop() == "[DONE]"
    return http.get(f"{JOBS}/{job_id}").json(), events


def test_a_job_makes_a_model_that_the_next_one_starts_from(http: httpx.Client) -> None:
    upload(http, llama_zip(), name="gpt-4o-mini.zip", purpose="base-model")
    data = upload(http, conversations(), name="data.jsonl", purpose="fine-tune")["id"]
    numbers = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 50}
    supervised = {"type": "supervised", "supervised": {"hyperparameters": numbers}}
    asked = {"model": "gpt-4o-mini", "training_file": data, "method": supervised, "suffix": "one", "samples": 0}
    created = http.post(JOBS, json={**asked, "validation_fraction": 0.25, "seed": 1}).raise_for_status().json()
    job, events = ended(http, created["id"])
    assert job["status"] == "succeeded", events
    assert job["fine_tuned_model"].startswith("ft:gpt-4o-mini:default:one:")
    assert job["trained_tokens"] > 100
    measured = [event["data"] for event in events if event["type"] == "metrics"]
    (results,) = job["result_files"]
    table = list(csv.reader(io.StringIO(http.get(f"/v1/files/{results}/content").text)))
    assert table[0] == HEADER
    assert [row[0] for row in table[1:]] == ["1", "2", "3", "4", "5", "6"]  # 9 conversations: 3 steps an epoch, twice
    assert measured[-1]["total_steps"] == measured[-1]["step"] == 6
    held_out = [one["valid_loss"] for one in measured if "valid_loss" in one]
    assert held_out[-1] < held_out[0], "the base's, before anything is learned"
    assert float(table[-1][3]) == pytest.approx(held_out[-1], rel=1e-4)
    assert [bool(row[3]) for row in table[1:]] == [False, False, True] * 2

    again = {**asked, "model": job["fine_tuned_model"], "suffix": "two"}
    second, events = ended(http, http.post(JOBS, json=again).raise_for_status().json()["id"])
    assert second["status"] == "succeeded", events
    assert second["fine_tuned_model"].startswith("ft:gpt-4o-mini:default:two:")
    lineage = http.get(f"/v1/models/{second['fine_tuned_model']}").json()["lineage"]
    assert lineage["base"]["job"] == job["id"]
