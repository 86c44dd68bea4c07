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
QUIET = {"batch_size": 128, "checkpoint_every": 100_000}
SMALL = {"architecture": "mlp", "hidden_sizes": [800, 800]}
LARGE = {"architecture": "mlp", "hidden_sizes": [1200, 1200], "dropout": 0.5, "input_dropout": 0.2}


def measure() -> list[Figure]:
    """Train a teacher, a student alone and a student that is taught, for each seed."""
    found = [errors_of(seed) for seed in SEEDS]
    teacher, alone, taught = (mean(each[name] for each in found) for name in ("teacher", "alone", "taught"))
    closed = (alone - taught) / (alone - teacher)
    return [
        Figure(
            f"part of the gap to its teacher that the student closes, {len(SEEDS)} seed(s)",
            "at least 70 %",
            f"{closed:.0%}",
            f"test errors of 10,000: teacher {teacher:.0f}, student alone {alone:.0f}, taught {taught:.0f}; the paper: "
            "67, 146, 74 (91 %)",
        )
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
    """Test errors of the teacher, the student alone and the student that is taught."""
    files = {"dataset": digits("train"), "validation": digits("t10k")}
    learning: dict[str, Any] = {"method": "classification", "weight_decay": 0, "seed": seed, **QUIET}
    teacher, folder = trained(
        {**learning, "architecture": LARGE, "jitter": 2, "epochs": 30, "precision": "bfloat16"}, **files
    )
    alone, _ = trained({**learning, "architecture": SMALL, "epochs": 30}, **files)
    teaching = {"method": "distillation", "student": SMALL, "temperature": 20, "epochs": 30, "seed": seed, **QUIET}
    taught, _ = trained(teaching, teacher=folder, **files)
    results = {"teacher": teacher, "alone": alone, "taught": taught}
    return {name: round((1 - metrics["valid_accuracy"]) * TEST_DIGITS) for name, metrics in results.items()}
