"""Self-organizing maps beside MiniSom, xpysom and torchsom: CPU seconds to the same two errors.

A map of 32 x 32 learns MNIST's digits at 8 x 8 pixels, rows of 64. Ours is told the topographic error that it may
have, a little less than the peer's; its quantization error must then be no higher than the peer's. Timed is ours from
the file to the last update, theirs from rows in memory to the last update; the map at that moment is judged, by the
same plain formulas for all. A job goes on: it judges its map on all rows, may go back to a better one, counts what each
unit stands for, and draws pictures; `seconds_of_whole_job` has all that in it. One thread each.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
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
    from core.methods.self_organizing_map import train
    from core.training.run import Run

    class TimedRun(Run):
        """Notes when its steps end and with which units; draws no pictures for watchers, as the peers draw none."""

        ended_at = 0.0
        units: Any = None

        def steps(self, *arguments: Any, **settings: Any) -> Iterator[Any]:
            """Those of any run."""
            yield from super().steps(*arguments, **settings)
            self.ended_at = time.process_time()
            network: Any = self._tracked["network"]
            self.units = network.units.clone()

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
        begun = time.process_time()
        train(spec, run)
        whole = time.process_time() - begun
    return reading(
        judged(data, run.units.view(SIDE, SIDE, -1).numpy(), run.ended_at - begun), seconds_of_whole_job=whole
    )


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


def reading(reached: Any, **others: float) -> Reading:
    """The time, beside the errors."""
    quality = {"quantization_error": reached.quantization_error, "topographic_error": reached.topographic_error}
    return Reading(reached.seconds, quality | others, cpu_seconds=reached.seconds)


def benchmark(name: str, goal: Goal, settings: dict[str, Any], sizes: Sequence[int], **peers: str) -> Benchmark:
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
        sizes=sizes,
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
        (25_000, 50_000),
        MiniSom="minisom",
        xpysom="xpysom",
    ),
    benchmark(
        "self-organizing-map-ordered",
        Goal("ahead of torchsom at a map as well ordered", ratio=1.0, limits={"topographic_error": 0.04}),
        {"max_topographic_error": 0.032, "radius": 4.0, "epochs": 40},
        (10_000, 25_000),
        torchsom="torchsom",
    ),
]
