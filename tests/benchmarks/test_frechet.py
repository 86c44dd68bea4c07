"""The distance that the figures of `gan` are in, against slow formulas."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.frechet import frechet_distance


def test_it_is_the_distance_of_gaussians_by_symmetric_roots() -> None:
    random = np.random.default_rng(0)
    one, other = (random.normal(size=(400, 6)) @ random.normal(size=(6, 6)) + shift for shift in (0.0, 0.7))
    values, vectors = np.linalg.eigh(np.cov(one, rowvar=False))
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    cross = np.linalg.eigvalsh(root @ np.cov(other, rowvar=False) @ root)
    expected = np.square(one.mean(0) - other.mean(0)).sum()
    expected += one.var(0, ddof=1).sum() + other.var(0, ddof=1).sum() - 2 * np.sqrt(cross).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-8)


def test_of_features_apart_it_is_the_differences_of_means_and_deviations() -> None:
    ends = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    one, other = ends * [2, 3] + [5, 0], ends * [7, 4]
    deviation = np.sqrt(2 / 3)  # of a column of ends
    expected = 5**2 + (deviation * (7 - 2)) ** 2 + (deviation * (4 - 3)) ** 2
    assert frechet_distance(one, other) == pytest.approx(expected)


def test_of_the_same_features_it_is_0() -> None:
    rows = np.random.default_rng(2).normal(size=(90, 5))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-6)
