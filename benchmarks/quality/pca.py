"""Principal components beside the float64 singular value decomposition, near the origin and far from it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from benchmarks.quality import Figure
from benchmarks.quality.training import trained
from core import load_model
from core.methods.pca import PCASpec, choose_moments
from core.training.row_blocks import RowBlocks, open_rows

ROWS, COLUMNS, KEPT = 50_000, 256, 20
LARGE_ROWS, LARGE_COLUMNS, PAIRS = 200_000, 512, 3
OFFSETS = (0, 1, 5, 50)


def measure() -> list[Figure]:
    """The worst component at each offset, ours streamed from disk and scikit-learn's default."""
    return [figure for offset in OFFSETS for figure in at(offset)] + speed()


def at(offset: int) -> list[Figure]:
    """The figures for data so many standard deviations away from the origin."""
    data = rows(offset)
    variances, components = decomposition(data)
    ours = streamed(data)
    theirs = PCA(KEPT).fit(data)
    error, cosine = compare(ours.explained_variance.numpy(), ours.components.numpy(), variances, components)
    sklearn_error, sklearn_cosine = compare(theirs.explained_variance_, theirs.components_, variances, components)
    what = f"{ROWS:,} x {COLUMNS} float32, {KEPT} components, offset of {offset} deviations"
    return [
        Figure(
            f"{what}: worst relative error of an explained variance",
            "at most 1e-6",
            f"{error:.1e}",
            f"scikit-learn's default: {sklearn_error:.1e}",
        ),
        Figure(
            f"{what}: cosine of the subspaces",
            "at least 0.99999",
            f"{cosine:.7f}",
            f"scikit-learn's default: {sklearn_cosine:.7f}",
        ),
    ]


def rows(offset: int) -> np.ndarray[Any, Any]:
    """Correlated columns whose spectrum falls from 9 to 1/9, each `offset` of its deviations from zero."""
    random = np.random.default_rng(0)
    turn, _ = np.linalg.qr(random.normal(size=(COLUMNS, COLUMNS)))
    data = random.normal(size=(ROWS, COLUMNS)) * np.geomspace(3, 1 / 3, COLUMNS) @ turn
    return (data + offset * data.std(0)).astype(np.float32)


def decomposition(data: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Variances and components by the float64 singular value decomposition of the centred data."""
    centred = data.astype(np.float64) - data.mean(0, dtype=np.float64)
    _, singular_values, components = np.linalg.svd(centred, full_matrices=False)
    return singular_values**2 / (len(data) - 1), components


def streamed(data: np.ndarray[Any, Any]) -> Any:
    """Our components, of the data as a file."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", data)
        _, artifacts = trained({"method": "pca", "n_components": KEPT}, dataset=Path(folder) / "rows.npy")
    return load_model(artifacts)


def compare(
    variances: np.ndarray[Any, Any],
    components: np.ndarray[Any, Any],
    true_variances: np.ndarray[Any, Any],
    true_components: np.ndarray[Any, Any],
) -> tuple[float, float]:
    """The worst relative error of a variance, and the smallest cosine between the subspaces."""
    errors = np.abs(variances / true_variances[:KEPT] - 1)
    cosines = np.linalg.svd(components.astype(np.float64) @ true_components[:KEPT].T, compute_uv=False)
    return float(errors.max()), float(cosines.min())


def speed() -> list[Figure]:
    """CPU time of fitting, in memory and streamed, beside scikit-learn in turn, on one thread."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    scale = np.geomspace(3, 1 / 3, LARGE_COLUMNS, dtype=np.float32)
    data = np.concatenate(
        [
            random.standard_normal((10_000, LARGE_COLUMNS), dtype=np.float32) * scale + 5
            for _ in range(LARGE_ROWS // 10_000)
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        np.save(path, data)
        fits: dict[str, Callable[[], Any]] = {
            "in memory": lambda: fit(in_memory(data)),
            "streamed": lambda: fit(open_rows(path, rows=PCASpec(dataset="file-1").block_rows)),
            "auto": lambda: PCA(KEPT).fit(data),
        }
        times: dict[str, list[float]] = {name: [] for name in fits}
        for _ in range(PAIRS):
            for name, run in fits.items():
                times[name].append(cpu_seconds(run))
    auto = median(times["auto"])
    what = f"{LARGE_ROWS:,} x {LARGE_COLUMNS} float32, {KEPT} components: CPU time"
    note = f"scikit-learn's default: {auto:.2f} s; {PAIRS} times in turn"
    return [
        Figure(f"{what}, in memory", f"at most {auto:.2f} s", f"{median(times['in memory']):.2f} s", note),
        Figure(f"{what}, streamed: read twice, checked", "", f"{median(times['streamed']):.2f} s", note),
    ]


def in_memory(data: np.ndarray[Any, Any]) -> RowBlocks:
    """Blocks of an array."""
    rows = PCASpec(dataset="file-1").block_rows
    blocks = [data[start : start + rows] for start in range(0, len(data), rows)]
    return RowBlocks(lambda: iter(blocks), rows=rows, examples=len(data), features=data.shape[1])


def fit(blocks: RowBlocks) -> Any:
    """The decomposition, as a job makes it."""
    moments = choose_moments(PCASpec(dataset="file-1", n_components=KEPT), blocks, device=torch.device("cpu"))
    for block in blocks:
        moments.add(block)
    return moments.decompose()


def cpu_seconds(run: Callable[[], Any]) -> float:
    """How long it takes the processor."""
    begun = time.process_time()
    run()
    return time.process_time() - begun
