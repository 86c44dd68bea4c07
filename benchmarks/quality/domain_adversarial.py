"""From MNIST's labels to scikit-learn's 8x8 digits without theirs: how much of the gap the adversary closes."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.data import CACHE
from benchmarks.quality import Figure
from benchmarks.quality.autoencoder import labels_of, pixels_of
from benchmarks.quality.training import trained

SEEDS = (0, 1, 2)
SOURCES = 5000
HELD_OUT = 500  # of 1,797
SETTINGS: dict[str, Any] = {"image_size": 16, "jitter": 2, "epochs": 8, "batch_size": 128, "checkpoint_every": 100_000}
WAYS = ("source alone", "both domains seen", "adversarial", "target's labels")


def measure() -> list[Figure]:
    """Train on the source alone, adversarially, and on the target's own labels, for each seed."""
    found = [accuracies(seed) for seed in SEEDS]
    reached = {name: mean(each[name] for each in found) for name in WAYS}
    gap = reached["target's labels"] - reached["source alone"]
    ranges = [f"{min(each[name] for each in found):.1%} to {max(each[name] for each in found):.1%}" for name in WAYS]
    rows = [
        Figure(f"accuracy on {HELD_OUT} held-out target digits: {name}", "", f"{reached[name]:.1%}", spread)
        for name, spread in zip(WAYS, ranges, strict=True)
    ]
    closed = [
        (each["adversarial"] - each["source alone"]) / (each["target's labels"] - each["source alone"])
        for each in found
    ]
    what = f"gap between source-only and target-trained that is closed, mean of {len(SEEDS)} seeds"
    share = f"{(reached['adversarial'] - reached['source alone']) / gap:.0%}"
    return [Figure(what, "at least a third", share, f"{min(closed):.0%} to {max(closed):.0%}"), *rows]


def accuracies(seed: int) -> dict[str, float]:
    """Of a classifier trained in each way, on the target's held-out digits."""
    source, target, held_out = files()
    plain = {"method": "classification", "seed": seed, **SETTINGS}
    adversarial = {**plain, "method": "domain_adversarial"}
    runs = {
        "source alone": trained(plain, dataset=source, validation=held_out),
        "both domains seen": trained(
            {**adversarial, "domain_weight": 0}, dataset=source, target=target, validation=held_out
        ),
        "adversarial": trained(adversarial, dataset=source, target=target, validation=held_out),
        "target's labels": trained({**plain, "epochs": 30}, dataset=target, validation=held_out),
    }
    found = {name: metrics["valid_accuracy"] for name, (metrics, _) in runs.items()}
    print(f"seed {seed}: {found}", file=sys.stderr, flush=True)
    return found


def files() -> tuple[Path, Path, Path]:
    """The first MNIST digits with labels; scikit-learn's digits to adapt to, and those held out."""
    paths = [CACHE / f"domains-{name}.npz" for name in ("mnist", "digits", "digits-held-out")]
    x = (pixels_of("train-images-idx3-ubyte")[:SOURCES] * 255).round().byte().numpy()
    np.savez(paths[0], x=x, y=labels_of("train-labels-idx1-ubyte")[:SOURCES])
    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    for path, rows in ((paths[1], order[HELD_OUT:]), (paths[2], order[:HELD_OUT])):
        np.savez(path, x=pixels[rows], y=digits.target[rows])
    return paths[0], paths[1], paths[2]
