"""What it costs to train through the service, with its events and a live watcher, beside the bare PyTorch loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.service import servers
from benchmarks.service.usage import spent

ROWS, COLUMNS = 20_000, 64
SPEC: dict[str, Any] = {
    "method": "autoencoder",
    "hidden_sizes": [512, 256],
    "code_size": 16,
    "batch_size": 256,
    "checkpoint_every": 10**6,
}


def measure_ours(steps: int) -> Reading:
    """Seconds from behind the first step to behind the last, as the events tell."""
    from benchmarks.service.start import client_folder, write_table

    with servers.weightworks_up() as (client, up):
        dataset = client.files.upload(write_table(client_folder(), ROWS)).id
        client.jobs.wait(client.jobs.create({**SPEC, "dataset": dataset, "steps": 2}).id)
        seen = []

        def train() -> None:
            job = client.jobs.create({**SPEC, "dataset": dataset, "steps": steps})
            seen.extend(event for event in client.jobs.events(job.id) if event.type == "metrics")

        used = spent(up.pid, train)
    first, last = seen[0], seen[-1]
    made = last.data["step"] - first.data["step"]
    assert made == steps - 1, f"the events tell of {made} steps between the first and the last of {steps}"
    quality = {"train_loss": last.data["values"]["loss"], "events": len(seen)}
    return Reading(last.created_at - first.created_at, quality, cpu_seconds=used)


def measure_bare(steps: int) -> Reading:
    """The same steps as a plain loop, from behind the first to behind the last."""
    import numpy as np
    import torch

    from benchmarks.service.start import client_folder, write_table
    from core.catalog import read_spec
    from core.methods.autoencoder import AutoencoderSpec, draw, losses
    from core.networks.autoencoder import Autoencoder
    from core.training.batches import Batches
    from core.training.optimization import adamw, schedule, update

    spec = read_spec({**SPEC, "dataset": "file-bare", "steps": steps})
    assert isinstance(spec, AutoencoderSpec)
    table: Path = write_table(client_folder(), ROWS)
    torch.manual_seed(spec.seed)
    x = torch.from_numpy(np.load(table))
    x = (x - x.mean(0)) / x.std(0, correction=0)
    network = Autoencoder((COLUMNS,), code_size=16, sizes=[512, 256], architecture="dense", is_variational=False)
    batches = Batches.of(ROWS, spec)
    optimizer = adamw(network.parameters(), spec)
    rates = schedule(optimizer, spec, total=len(batches))
    generator = torch.Generator().manual_seed(spec.seed)
    started_at = used = 0.0
    for batch in batches:
        drawn = draw(x[batch.rows], network, spec, generator=generator)
        loss = losses(network, drawn, spec)["loss"].sum() / len(batch.rows)
        loss.backward()
        update(optimizer, rates, spec)
        if batch.step == 0:
            started_at, used = time.monotonic(), time.process_time()
    seconds, used = time.monotonic() - started_at, time.process_time() - used
    return Reading(seconds, {"train_loss": loss.item()}, cpu_seconds=used)


BENCHMARKS = [
    Benchmark(
        name="watched",
        what="the same training through the service, events on and a live watcher, beside the bare loop",
        unit="s",
        more_is_better=False,
        goal=Goal("at most 1.02 of the bare loop", ratio=1.02),
        ours=Side("Weightworks", measure_ours, packages=("torch", "fastapi", "celery", "redis")),
        peers=(Side("bare PyTorch loop", measure_bare, packages=("torch",)),),
        size="steps",
        sizes=(500, 2000),
        full_sizes=(500, 2000, 8000),
    )
]
