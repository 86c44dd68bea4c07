"""Self-organizing maps beside MiniSom, xpysom and torchsom: CPU seconds to the same two errors.

A map of 32 x 32 learns MNIST's digits at 8 x 8 pixels, rows of 64. Ours is told the topographic error that it may have,
a little less than the peer's; its quantization error must then be no higher than the peer's. Timed is ours from reading
the file to the map that is saved, with the two passes over all rows that choose and judge it; theirs from rows in
memory to the last update. Both errors are computed by the same plain formulas, for all. One thread each.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.methods.one_thread import use_one_thread

SIDE = 32


def ours(settings: dict[str, Any], rows: int) -> Reading:
    """A job on the rows as they are."""
    use_one_thread()
    import numpy as np
    import torch

    from benchmarks.quality.self_organizing_map import Quiet, judged, small_mnist
    from core.catalog import read_spec
    from core.execution import train
    from core.networks.loading import load_model
    from core.training.run import Run

    class TimedRun(Run):
        """Notes when the map is first saved; draws no pictures for watchers, as the peers draw none."""

        saved_at = 0.0

        def __getattribute__(self, name: str) -> Any:
            if name == "artifacts" and not self.saved_at:
                self.saved_at = time.process_time()
            return super().__getattribute__(name)

        def show(self, *arguments: Any, **settings: Any) -> Path:
            """Nothing."""
            return self.folder

    torch.set_num_threads(1)
    data = small_mnist()[:rows]
    size = {"rows": SIDE, "columns": SIDE, "standardize": False}
    spec = read_spec({"method": "self_organizing_map", "dataset": "file-rows", **size, **settings})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        np.save(path, data)
        run = TimedRun(spec=spec, inputs={"dataset": path}, folder=Path(folder), reporter=Quiet())
        run.saved_at = 0.0
        begun = time.process_time()
        train(run, lineage={})
        network: Any = load_model(run.artifacts)
    return reading(judged(data, network.units.view(SIDE, SIDE, -1).numpy(), run.saved_at - begun))


def theirs(peer: str, rows: int) -> Reading:
    """MiniSom in one pass from its PCA start, xpysom in ten epochs, torchsom in five."""
    use_one_thread()
    import torch

    from benchmarks.quality import self_organizing_map as maps

    torch.set_num_threads(1)
    data = maps.small_mnist()[:rows]
    if peer == "MiniSom":
        return reading(maps.minisom(data, SIDE, 3.0, 1, 0))
    return reading({"xpysom": maps.xpysom, "torchsom": maps.torchsom}[peer](data, SIDE))


def reading(reached: Any) -> Reading:
    """The time, beside the errors."""
    quality = {"quantization_error": reached.quantization_error, "topographic_error": reached.topographic_error}
    return Reading(reached.seconds, quality, cpu_seconds=reached.seconds)


def benchmark(name: str, goal: Goal, settings: dict[str, Any], **peers: str) -> Benchmark:
    """Beside the peers, given with their packages."""
    return Benchmark(
        name=name,
        what=f"a map of {SIDE} x {SIDE} of rows of 64, to the same errors as {' and '.join(peers)}",
        unit="CPU s",
        more_is_better=False,
        goal=goal,
        ours=Side("Weightworks", partial(ours, settings), ("torch", "numpy")),
        peers=[Side(peer, partial(theirs, peer), (package,), is_peer=True) for peer, package in peers.items()],
        size="rows",
        sizes=(10_000, 25_000),
        full_sizes=(25_000, 50_000),
    )


BENCHMARKS = [
    benchmark(
        "self-organizing-map",
        Goal(
            "at least 40x MiniSom, 10x xpysom, at no higher errors",
            ratios={"MiniSom": 1 / 40, "xpysom": 1 / 10},
            limits={"topographic_error": 0.077},
        ),
        {"max_topographic_error": 0.075, "radius": 4.0, "epochs": 10},
        MiniSom="minisom",
        xpysom="xpysom",
    ),
    benchmark(
        "self-organizing-map-ordered",
        Goal("ahead of torchsom at a map as well ordered", ratio=1.0, limits={"topographic_error": 0.04}),
        {"max_topographic_error": 0.035, "radius": 4.0, "epochs": 40},
        torchsom="torchsom",
    ),
]
