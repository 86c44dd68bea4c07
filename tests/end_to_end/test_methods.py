"""Every method's example, as the API hands it out, is trained over HTTP, and its weights and samples come home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file

from core.catalog import methods
from tests.conftest import Up
from weightworks import Client

PATIENCE = 240.0


@pytest.fixture(scope="module")
def http(weightworks_up: Up) -> Any:
    connection = json.loads((weightworks_up.home / "connection.json").read_text())
    headers = {"authorization": f"Bearer {connection['api_key']}"}
    with httpx.Client(base_url=connection["base_url"], headers=headers, timeout=60) as client:
        yield client


def uploaded(http: httpx.Client, address: str) -> str:
    """The id of an example's data set, sent back to where it came from."""
    content = http.get(address).raise_for_status().content
    answer = http.post("/v1/files", files={"file": ("example", content)}, data={"purpose": "dataset"})
    return answer.raise_for_status().json()["id"]


@pytest.mark.parametrize("name", list(methods()))
def test_an_example_is_trained_over_http(name: str, http: httpx.Client, weightworks_up: Up, tmp_path: Path) -> None:
    told = http.get(f"/v1/methods/{name}").raise_for_status().json()
    files = {field: uploaded(http, address) for field, address in told["example_files"].items()}
    files["dataset"] = uploaded(http, told["example"]["dataset"])
    jobs = {name: {**told["example"]["spec"], **files, **{field: {"job": field} for field in told["example_needs"]}}}
    for field, need in told["example_needs"].items():
        jobs[field] = {**need["spec"], "dataset": uploaded(http, need["dataset"])}
    pipeline = http.post("/v1/pipelines", json={"jobs": jobs})
    assert pipeline.status_code in (200, 201, 202), pipeline.text
    with Client(home=weightworks_up.home) as client:
        job = client.jobs.wait(pipeline.json()["jobs"][name]["id"], timeout=PATIENCE)
        assert job.status == "succeeded", job.error
        client.jobs.download(job.id, tmp_path / "weights")
        assert load_file(tmp_path / "weights" / "model.safetensors")
        for path in client.jobs.download_samples(job.id, tmp_path / "samples"):
            assert path.stat().st_size > 0
