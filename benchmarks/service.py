"""What the service costs: from the POST to the first training step, and of being watched.

    python -m benchmarks.service start      # submit to first step, a warm worker, median of 20
    python -m benchmarks.service watched    # seconds of training through the service / of the bare loop, in turn

Both start `weightworks up` on a home of their own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.catalog import read_spec
from core.training.batches import Batches
from core.training.optimization import adamw, schedule, update
from examples.demo.__main__ import server
from weightworks.client import Client

SUBMITS, PAIRS = 20, 5
ROWS, COLUMNS = 20_000, 64
SPEC: dict[str, Any] = {
    "method": "autoencoder",
    "hidden_sizes": [512, 256],
    "code_size": 16,
    "batch_size": 256,
    "steps": 2000,
    "checkpoint_every": 10**6,
}


def main(what: str) -> None:
    """Measure one of the two and print it."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as client:
        table = Path(folder) / "table.npy"
        np.save(table, np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32))
        dataset = client.files.upload(table).id
        time.sleep(5)  # let the server's own start settle
        {"start": measure_start, "watched": measure_watched}[what](client, dataset, table)


def measure_start(client: Client, dataset: str, table: Path) -> None:
    """Seconds from sending the POST until the watcher holds the event of the first step."""
    seconds = []
    for _ in range(SUBMITS):
        sent_at = time.monotonic()
        job = client.jobs.create({**SPEC, "dataset": dataset, "steps": 2})
        next(event for event in client.jobs.events(job.id) if event.type == "metrics")
        seconds.append(time.monotonic() - sent_at)
        client.jobs.wait(job.id)
    ordered = sorted(seconds)
    print(f"POST to first step: median {statistics.median(ordered):.3f} s, {ordered[0]:.3f} to {ordered[-1]:.3f} s")


def measure_watched(client: Client, dataset: str, table: Path) -> None:
    """The ratio of the same steps' seconds: through the service with a live watcher, and in a bare loop."""
    ratios = []
    for _ in range(PAIRS):
        job = client.jobs.create({**SPEC, "dataset": dataset})
        steps = [event.created_at for event in client.jobs.events(job.id) if event.type == "metrics"]
        watched = steps[-1] - steps[0]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.service", "bare", str(table)], check=True, capture_output=True, text=True
        )
        bare = float(done.stdout)
        ratios.append(watched / bare)
        print(f"watched {watched:.2f} s, bare {bare:.2f} s, ratio {ratios[-1]:.3f}")
    print(f"cost of being watched: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


def bare_loop(table: Path) -> float:
    """The same training as plain PyTorch: seconds from behind the first step to behind the last."""
    from core.methods.autoencoder import AutoencoderSpec, draw, losses
    from core.networks.autoencoder import Autoencoder

    spec = read_spec({**SPEC, "dataset": "file-bare"})
    assert isinstance(spec, AutoencoderSpec)
    torch.manual_seed(spec.seed)
    x = torch.from_numpy(np.load(table))
    x = (x - x.mean(0)) / x.std(0, correction=0)
    network = Autoencoder((COLUMNS,), code_size=16, sizes=[512, 256], architecture="dense", is_variational=False)
    batches = Batches.of(ROWS, spec)
    optimizer = adamw(network.parameters(), spec)
    rates = schedule(optimizer, spec, total=len(batches))
    generator = torch.Generator().manual_seed(spec.seed)
    started_at = 0.0
    for batch in batches:
        drawn = draw(x[batch.rows], network, spec, generator=generator)
        loss = losses(network, drawn, spec)["loss"].sum() / len(batch.rows)
        loss.backward()
        update(optimizer, rates, spec)
        if batch.step == 0:
            started_at = time.monotonic()
    return time.monotonic() - started_at


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        print(bare_loop(Path(sys.argv[2])))
    else:
        main(sys.argv[1])
