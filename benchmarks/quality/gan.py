"""What GANs reach on MNIST after equal steps: distance to the real digits, classes, collapse, and time a step."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import CACHE, mnist
from benchmarks.frechet import features, frechet_distance, labelled_digits
from benchmarks.quality import Figure
from benchmarks.quality.training import trained
from core import load_model
from core.catalog import read_spec
from core.data.images import read_images

STEPS = 1330
SAMPLES = 10_000
FOUND = CACHE / "gan"  # a file for each finished run
PLAIN = {"variant": "dcgan", "schedule": "constant", "ema": None}  # as Radford et al. 2016 have it
RUNS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "relativistic": ({}, (0, 1, 2, 3, 4)),
    "plain DCGAN": (PLAIN, (0, 1, 2)),
    "DCGAN with EMA": ({**PLAIN, "ema": 0.999}, (0, 1)),
    "WGAN-GP": ({"variant": "wgan_gp"}, (0,)),
    "relativistic, conditional": ({"conditional": True}, (0,)),
}


def measure() -> list[Figure]:
    """Train all and compare; what an earlier call has finished is read from `.cache/data/gan`."""
    found = {name: [result(spec, seed) for seed in seeds] for name, (spec, seeds) in RUNS.items()}
    ours, plain = mean(found["relativistic"], "distance"), mean(found["plain DCGAN"], "distance")
    real = features(digits("t10k-images-idx3-ubyte"))[0]
    shares = np.array([run["shares"] for run in found["relativistic"]])
    diversity = [run["diversity"] for run in found["relativistic"]]
    steps = f"after {STEPS:,} steps of 64"
    conditional = found["relativistic, conditional"][0]
    return [
        Figure(
            f"Fréchet distance {steps}, relativistic over plain DCGAN",
            "at most 0.5",
            f"{ours / plain:.2f}",
            f"real test digits against the 60,000: {frechet_distance(real, reference()):.2f}",
        ),
        *[
            Figure(
                f"{name}: Fréchet distance",
                "",
                f"{mean(runs, 'distance'):.2f}",
                f"seeds: {', '.join(format(run['distance'], '.2f') for run in runs)}; "
                f"{1000 * mean(runs, 'seconds_a_step'):.0f} CPU ms a step",
            )
            for name, runs in found.items()
        ],
        Figure(
            "relativistic: share of each of the ten classes, in all five runs",
            "5 % to 15 %",
            f"{shares.min():.1%} to {shares.max():.1%}",
        ),
        Figure(
            "relativistic: distance to the nearest other sample, of the real digits', in the worst of five runs",
            "no collapse",
            f"{min(diversity):.2f}",
        ),
        Figure("relativistic, conditional: images of the class asked for", "", f"{conditional['asked_for']:.1%}"),
    ]


def mean(runs: list[dict[str, Any]], name: str) -> float:
    """Of one number over runs."""
    return float(np.mean([run[name] for run in runs]))


def result(spec: dict[str, Any], seed: int) -> dict[str, Any]:
    """What a run reached, from its file where a run of the same settings has left one."""
    whole = {"method": "gan", "steps": STEPS, **spec, "seed": seed}
    settings = read_spec({**whole, "dataset": "file-dataset"}).model_dump_json()
    path = FOUND / f"{hashlib.sha256(settings.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        FOUND.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"spec": whole, **run(whole, path.with_suffix(""))}, indent=2))
    return json.loads(path.read_text())


def run(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train, and look at SAMPLES images of the trained generator."""
    started = time.process_time()
    metrics, artifacts = trained(spec, folder, dataset=labelled_digits())
    seconds = time.process_time() - started
    images, classes = painted(load_model(artifacts))
    seen, predicted = features(images)
    return {
        "distance": frechet_distance(seen, reference()),
        "shares": (np.bincount(predicted, minlength=10) / len(predicted)).tolist(),
        "diversity": metrics["sample_diversity"],
        "asked_for": float(np.mean(predicted == classes)),
        "seconds_a_step": seconds / STEPS,
    }


@torch.no_grad()
def painted(generator: Any) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """SAMPLES images, always of the same codes, and the classes asked for, where it has them."""
    codes = torch.randn(SAMPLES, generator.latent_size, generator=torch.Generator().manual_seed(1))
    classes = torch.arange(SAMPLES) % 10
    blocks = zip(codes.split(500), classes.split(500), strict=True)
    images = [generator(*(block if generator.embedding is not None else block[:1])) for block in blocks]
    return torch.cat(images), classes.numpy()


def digits(name: str) -> torch.Tensor:
    """MNIST's images as bytes."""
    return read_images(mnist(name)).pixels


def reference() -> Any:
    """The features of the 60,000 digits to learn from, kept beside the classifier."""
    path = CACHE / "mnist-features" / "reference.npy"
    if not path.exists():
        np.save(path, features(digits("train-images-idx3-ubyte"))[0].astype(np.float32))
    return np.load(path).astype(np.float64)
