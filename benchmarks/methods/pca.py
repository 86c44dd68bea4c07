"""PCA beside scikit-learn: CPU seconds to 20 components of 512 columns, and how wrong the variances are.

Data lie 0, 1, 5 and 50 standard deviations from the origin; the time is that at 5. Errors are the worst relative ones
of the 20 variances, beside the eigenvalues of the covariance in float64 about the exact mean. One thread each; our
time ends with the components in memory, as scikit-learn's does, and streamed it has the check of the whole file in it.
"""

from __future__ import annotations

import importlib
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import CACHE
from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.methods.one_thread import timed, use_one_thread

COLUMNS, KEPT, BLOCK = 512, 20, 10_000
OFFSETS = (5, 0, 1, 50)  # the first is the one that is timed

Fit = Callable[[Path], Any]  # answers the variances


def file_of(rows: int, offset: int) -> Path:
    """Correlated columns whose spectrum falls from 9 to 1/9, each `offset` of its deviations from zero, as .npy."""
    import numpy as np

    path = CACHE / f"pca-{rows}-{offset}.npy"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        turn, _ = np.linalg.qr(random.normal(size=(COLUMNS, COLUMNS)))
        mixing = np.geomspace(3, 1 / 3, COLUMNS)[:, None] * turn
        away = offset * np.sqrt((mixing**2).sum(0))
        with path.with_suffix(".part").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, COLUMNS)}
            np.lib.format.write_array_header_1_0(file, header)
            for first in range(0, rows, BLOCK):
                block = random.standard_normal((min(BLOCK, rows - first), COLUMNS))
                file.write((block @ mixing + away).astype(np.float32).tobytes())
        path.with_suffix(".part").rename(path)
    return path


def true_variances(path: Path) -> Any:
    """In float64, in two passes: the mean, then the products of what is left."""
    import numpy as np

    known = path.with_suffix(".variances.npy")
    if not known.exists():
        data = np.load(path, mmap_mode="r")

        def blocks() -> Iterator[Any]:
            return (data[first : first + BLOCK].astype(np.float64) for first in range(0, len(data), BLOCK))

        mean = sum(block.sum(0) for block in blocks()) / len(data)
        scatter = sum((block - mean).T @ (block - mean) for block in blocks())
        np.save(known, np.linalg.eigvalsh(scatter / (len(data) - 1))[::-1])
    return np.load(known)


def measured(fit: Fit, offsets: tuple[int, ...], rows: int, *, is_in_memory: bool) -> Reading:
    """The time at the first offset, the errors at all of them."""
    use_one_thread()
    import numpy as np

    paths = [file_of(rows, offset) for offset in offsets]
    quality, seconds, peak = {}, 0.0, 0
    for offset, path in zip(offsets, paths, strict=True):
        data: Any = np.load(path) if is_in_memory else path
        variances, used = timed(partial(fit, data))
        if offset == offsets[0]:
            seconds, peak = used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        error = np.abs(np.asarray(variances, dtype=np.float64) / true_variances(path)[:KEPT] - 1).max()
        quality[f"variance_error_at_{offset}"] = float(error)
    return Reading(seconds, quality, cpu_seconds=seconds, peak_bytes=peak)


def ours_in_memory(rows: int) -> Reading:
    """The arithmetic of a job, on an array."""

    def fit(data: Any) -> Any:
        from core.training.row_blocks import RowBlocks

        size = block_rows()
        blocks = [data[first : first + size] for first in range(0, len(data), size)]
        return variances(RowBlocks(lambda: iter(blocks), rows=size, examples=len(data), features=COLUMNS))

    import_ours()
    return measured(fit, OFFSETS, rows, is_in_memory=True)


def ours_streamed(rows: int) -> Reading:
    """A job's way with a file: it is checked to its end first, then read in blocks."""

    def fit(path: Path) -> Any:
        from core.training.row_blocks import open_rows

        return variances(open_rows(path, rows=block_rows()))

    import_ours()
    return measured(fit, OFFSETS, rows, is_in_memory=False)


def block_rows() -> int:
    """A job's default."""
    from core.methods.pca import PCASpec

    return PCASpec(dataset="file-rows").block_rows


def variances(blocks: Any) -> Any:
    """As `core.methods.pca.train` finds them."""
    import torch

    from core.methods.pca import PCASpec, choose_moments

    moments = choose_moments(PCASpec(dataset="file-rows", n_components=KEPT), blocks, device=torch.device("cpu"))
    for block in blocks:
        moments.add(block)
    return moments.decompose().variances[:KEPT].numpy()


def import_ours() -> None:
    """Import what is needed, which is not timed."""
    use_one_thread()
    import torch

    torch.set_num_threads(1)
    for module in ("core.methods.pca", "core.training.row_blocks"):
        importlib.import_module(module)


def sklearn(solver: str, offsets: tuple[int, ...], rows: int) -> Reading:
    """Of an array, as float32."""
    use_one_thread()
    from sklearn.decomposition import PCA

    def fit(data: Any) -> Any:
        return PCA(KEPT, svd_solver=solver).fit(data).explained_variance_

    return measured(fit, offsets, rows, is_in_memory=True)


def incremental(rows: int) -> Reading:
    """scikit-learn's PCA in batches of its default size, of a mapped file, as its documentation does it."""
    use_one_thread()
    import numpy as np
    from sklearn.decomposition import IncrementalPCA

    def fit(path: Path) -> Any:
        return IncrementalPCA(KEPT).fit(np.load(path, mmap_mode="r")).explained_variance_

    return measured(fit, OFFSETS[:1], rows, is_in_memory=False)


LIMITS = {f"variance_error_at_{offset}": 1e-6 for offset in OFFSETS}
FULL, INCREMENTAL = "scikit-learn full", "scikit-learn IncrementalPCA"

BENCHMARKS = [
    Benchmark(
        name="pca-in-memory",
        what="20 components of rows of 512 float32, from an array in memory",
        unit="CPU s",
        more_is_better=False,
        goal=Goal(
            "no slower than auto, at least 15x full; variances right to 1e-6 at every offset",
            ratio=1.0,
            ratios={FULL: 1 / 15},
            limits=LIMITS,
        ),
        ours=Side("Weightworks", ours_in_memory, ("torch", "numpy")),
        peers=(
            Side("scikit-learn auto", partial(sklearn, "auto", OFFSETS), ("scikit-learn",), is_peer=True),
            Side(FULL, partial(sklearn, "full", OFFSETS[:1]), ("scikit-learn",), is_peer=True),
        ),
        size="rows",
        sizes=(20_000, 50_000),
        full_sizes=(50_000, 200_000),
    ),
    Benchmark(
        name="pca-streamed",
        what="the same from a file, in flat memory",
        unit="CPU s",
        more_is_better=False,
        goal=Goal(
            "at least 15x IncrementalPCA; variances right to 1e-6 at every offset; memory flat in rows",
            ratio=1 / 15,
            limits=LIMITS,
        ),
        ours=Side("Weightworks", ours_streamed, ("torch", "numpy")),
        peers=(Side(INCREMENTAL, incremental, ("scikit-learn",), is_peer=True),),
        size="rows",
        sizes=(20_000, 50_000),
        full_sizes=(50_000, 200_000),
    ),
]
