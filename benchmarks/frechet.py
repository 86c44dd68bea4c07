"""Fréchet distance between sets of digits, in the features of a small classifier that is trained once from a seed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import sqrtm

from benchmarks.data import CACHE, mnist
from benchmarks.quality.training import trained
from core import load_model
from core.data.images import read_images

CLASSIFIER = CACHE / "mnist-features"
ROWS = 500

Array = npt.NDArray[np.float64]


def classifier() -> Any:
    """A convnet of 256 features, after two epochs of MNIST's 60,000 digits; about 99 % right on the others."""
    if not CLASSIFIER.exists():
        spec = {
            "method": "classification",
            "architecture": {"architecture": "convnet", "channels": [16, 32, 64]},
            "epochs": 2,
            "batch_size": 128,
            "seed": 0,
        }
        _, folder = trained(spec, dataset=labelled_digits())
        shutil.copytree(folder, CLASSIFIER)
    return load_model(CLASSIFIER)


def labelled_digits() -> Path:
    """MNIST's 60,000 digits with their classes, as one file."""
    path = CACHE / "mnist-labelled.npz"
    if not path.exists():
        labels = np.frombuffer(mnist("train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
        np.savez(path, x=read_images(mnist("train-images-idx3-ubyte")).pixels[:, 0].numpy(), y=labels)
    return path


@torch.no_grad()
def features(images: torch.Tensor) -> tuple[Array, npt.NDArray[np.int64]]:
    """What the classifier sees in `images` [n, 1, 28, 28] in [0, 1]: features [n, 256] and predicted classes [n]."""
    network = classifier()
    found, classes = [], []
    for rows in images.split(ROWS):
        hidden = network.encoder(network.standardization(rows.float() / 255 if rows.dtype == torch.uint8 else rows))
        found.append(hidden)
        classes.append(network.head(hidden).argmax(1))
    return torch.cat(found).double().numpy(), torch.cat(classes).numpy()


def frechet_distance(one: Array, other: Array) -> float:
    """Between the Gaussians of two sets of features [n, features] (Heusel et al. 2017).

    |mean - mean'|^2 + trace(C + C' - 2 (C C')^(1/2)).
    """
    mean, covariance = one.mean(0), np.cov(one, rowvar=False)
    other_mean, other_covariance = other.mean(0), np.cov(other, rowvar=False)
    root = np.real(sqrtm(covariance @ other_covariance))
    return float(np.square(mean - other_mean).sum() + np.trace(covariance + other_covariance - 2 * root))
