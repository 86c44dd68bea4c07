"""A short real measurement for a preview: the job's first steps, in a process that knows no credentials."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.environment import learning_environment
from core.errors import WeightworksError
from core.jobs.inputs import Input
from core.placement import place_inputs
from core.settings import Settings
from core.spec import MethodSpec
from core.storage import Storage

ROOT = Path(__file__).parents[1]
STEP_SECONDS = 2.0
_one_at_a_time = threading.Lock()


class FirstStepsError(WeightworksError):
    """The job would fail as its first steps did: the error that it would end with."""

    status = 422

    def __init__(self, details: Mapping[str, Any]) -> None:
        super().__init__(details["message"], param=details["param"], code=details["code"])
        self.problems = details.get("problems", [])


def measure(
    spec: MethodSpec, found: Mapping[str, Input], *, storage: Storage, settings: Settings
) -> dict[str, Any] | str:
    """What the first steps tell, as `core.measuring.Estimate` has it; or why they tell nothing.

    Raises FirstStepsError.
    """
    limit = settings.preview_seconds
    if not _one_at_a_time.acquire(timeout=limit):
        return "other previews are being measured: ask again"
    try:
        with tempfile.TemporaryDirectory(prefix="preview-", dir=storage.incoming) as folder:
            order = {
                "spec": spec.model_dump(mode="json"),
                "inputs": place_inputs(found, storage=storage, folder=Path(folder) / "inputs"),
                "folder": folder,
                "seconds": STEP_SECONDS,
                "threads": settings.threads,
                "max_unpacked_bytes": settings.max_unpacked_bytes,
            }
            return _asked(order, limit=limit)
    finally:
        _one_at_a_time.release()


def _asked(order: Mapping[str, Any], *, limit: float) -> dict[str, Any] | str:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "core.measuring"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=ROOT,
            env=learning_environment(os.environ),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"reading the data and making the first steps takes longer than {limit:g} seconds"
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        return f"the first steps failed: {last[:300]}"
    answer: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    if "error" in answer:
        raise FirstStepsError(answer["error"])
    return answer
