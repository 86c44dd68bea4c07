"""From the POST to the first step on a GPU through the whole service, and what is left on the device afterwards."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from examples.demo.__main__ import server

SUBMITS = 10
PATIENCE_SECONDS = 20.0
SPEC: dict[str, Any] = {
    "method": "autoencoder",
    "hidden_sizes": [512, 256],
    "code_size": 16,
    "batch_size": 256,
    "steps": 200,
    "device": "cuda",
}


def measure() -> dict[str, float]:
    """Seconds of a few submits in turn, and the device's memory before the first and after the last of them."""
    with tempfile.TemporaryDirectory(prefix="device-") as folder, server(Path(folder)) as client:
        table = Path(folder) / "table.npy"
        np.save(table, np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32))
        dataset = client.files.upload(table).id
        before, seconds = used_mebibytes(), []
        for _ in range(SUBMITS):
            sent_at = time.monotonic()
            job = client.jobs.create({**SPEC, "dataset": dataset})
            next(event for event in client.jobs.events(job.id) if event.type == "metrics")
            seconds.append(time.monotonic() - sent_at)
            client.jobs.wait(job.id)
        after, given_back = until_no_more_than(before)
        return {
            "post_to_first_step": statistics.median(seconds),
            "slowest": max(seconds),
            "mebibytes_before": before,
            "mebibytes_after": after,
            "seconds_until_given_back": given_back,
        }


def until_no_more_than(mebibytes: float) -> tuple[float, float]:
    """What is in use once it is no more than this, or has not come down for long, and the seconds that it took."""
    began = time.monotonic()
    while (used := used_mebibytes()) > mebibytes and time.monotonic() - began < PATIENCE_SECONDS:
        time.sleep(0.1)
    return used, time.monotonic() - began


def used_mebibytes() -> float:
    """Memory of the first device in use by anyone, as the driver tells it: no context of ours is made for it."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
