"""Principal components beside the float64 singular value decomposition, near the origin and far from it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from benchmarks.quality import Figure
from benchmarks.quality.training import trained
from core import load_model

ROWS, COLUMNS, KEPT = 50_000, 256, 20
OFFSETS = (0, 1, 5, 50)


def measure() -> list[Figure]:
    """The worst component at each offset, ours streamed from disk and scikit-learn's default."""
    return [figure for offset in OFFSETS for figure in at(offset)]


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
