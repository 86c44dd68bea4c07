"""What the schema allows, and what it forbids, by the thousand: no 5xx, and every answer as the schema says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.service import Api
from tests.faults import fuzz

# Their bodies are one of all methods' specs, which has too many ends to try all: `make fuzz` does.
LARGE = ("/v1/jobs", "/v1/jobs/preview", "/v1/pipelines")
RUNS = {
    "coverage": [option for path in LARGE for option in ("--exclude-path", path)],
    "fuzzing": ["--max-examples", "10"],
    "stateful": ["--max-examples", "20"],
}
LEAST_REQUESTS = {"coverage": 500, "fuzzing": 400, "stateful": 50}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("fuzz")
    with fuzz.api(folder, redis_url) as api:
        yield api
    assert "Traceback" not in (folder / "api.log").read_text()


@pytest.mark.parametrize("phase", RUNS)
def test_every_answer_is_as_the_schema_says(served: Api, tmp_path: Path, phase: str) -> None:
    status, printed, count = fuzz.run(served.base_url, tmp_path, ["--phases", phase, "--seed", "0", *RUNS[phase]])
    assert status == 0, printed
    assert count >= LEAST_REQUESTS[phase]
