"""Hinton's MNIST setting: two layers of 1200 with dropout and jitter teach two layers of 800 without either."""

from __future__ import annotations

import zipfile
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.data import CACHE, mnist
from benchmarks.quality import Figure
from benchmarks.quality.training import trained

SEEDS = (1,)
TEST_DIGITS = 10_000
QUICK: dict[str, Any] = {"precision": "bfloat16", "checkpoint_every": 100_000}
TEACHER = {**QUICK, "epochs": 30, "batch_size": 128}
STUDENT = {**QUICK, "epochs": 24, "batch_size": 256, "learning_rate": 2e-3}
SMALL = {"architecture": "mlp", "hidden_sizes": [800, 800]}
LARGE = {"architecture": "mlp", "hidden_sizes": [1200, 1200], "dropout": 0.2}  # a half learns too slowly for 30 epochs


def measure() -> list[Figure]:
    """Train a teacher, a student alone and students that are taught, for each seed."""
    found = [errors_of(seed) for seed in SEEDS]
    errors = {name: mean(each[name] for each in found) for name in found[0]}
    gap = errors["alone"] - errors["teacher"]
    what = f"gap to its teacher that the student closes, {len(SEEDS)} seed(s), {STUDENT['epochs']} epochs"
    of = f"test errors of 10,000: teacher {errors['teacher']:.0f}, student alone {errors['alone']:.0f}, taught"
    return [
        Figure(
            f"{what}, taught on shifted images",
            "at least 70 %",
            f"{(errors['alone'] - errors['shifted']) / gap:.0%}",
            f"{of} {errors['shifted']:.0f}",
        ),
        Figure(
            f"{what}, taught on the images as they are",
            "the paper: 91 %",
            f"{(errors['alone'] - errors['plain']) / gap:.0%}",
            f"{of} {errors['plain']:.0f}; the paper: 67, 146, 74",
        ),
    ]


def digits(split: str) -> Path:
    """MNIST's images and labels of `train` or `t10k` in one zip."""
    path = CACHE / f"mnist-{split}.zip"
    if not path.exists():
        with zipfile.ZipFile(path, "w") as archive:
            for part in ("images-idx3-ubyte", "labels-idx1-ubyte"):
                archive.write(mnist(f"{split}-{part}"), f"{split}-{part}")
    return path


def errors_of(seed: int) -> dict[str, float]:
    """Test errors of the teacher, the student alone, and the student taught on plain and on shifted images."""
    files = {"dataset": digits("train"), "validation": digits("t10k")}
    learning = {"method": "classification", "weight_decay": 0, "seed": seed}
    teacher, folder = trained({**learning, **TEACHER, "architecture": LARGE, "jitter": 2}, **files)
    found = {"teacher": teacher}
    found["alone"], _ = trained({**learning, **STUDENT, "architecture": SMALL}, **files)
    teaching = {"method": "distillation", "student": SMALL, "temperature": 20, "seed": seed, **STUDENT}
    for name, jitter in {"plain": 0, "shifted": 2}.items():
        found[name], _ = trained({**teaching, "jitter": jitter}, teacher=folder, **files)
    return {name: round((1 - metrics["valid_accuracy"]) * TEST_DIGITS) for name, metrics in found.items()}
