"""What the demo asks for: a pipeline of three jobs, and one more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STUDENT = {"architecture": "mlp", "hidden_sizes": [64]}
TEACHER = {"architecture": "convnet", "channels": [64, 128, 256], "dropout": 0.2}
WORDS = ("film", "minister", "software", "profits", "election")


def distillation(files: Mapping[str, str]) -> dict[str, Any]:
    """A large teacher sees all classes, a small student those of 100 images; then the teacher's answers teach it."""
    return {
        "name": "digits",
        "jobs": {
            "teacher": {
                "method": "classification",
                "dataset": files["labelled"],
                "validation": files["test"],
                "architecture": TEACHER,
                "epochs": 25,
                "learning_rate": 3e-3,
                "jitter": 1,
            },
            "student": {
                "method": "classification",
                "dataset": files["few"],
                "validation": files["test"],
                "architecture": STUDENT,
                "epochs": 60,
                "batch_size": 20,
                "learning_rate": 3e-3,
            },
            "distilled": {
                "method": "distillation",
                "dataset": files["unlabelled"],
                "teacher": {"job": "teacher"},
                "student": {"job": "student"},
                "epochs": 150,
                "learning_rate": 5e-3,
            },
        },
    }


def word_vectors(file: str) -> dict[str, Any]:
    """Word vectors of a small corpus: more passes than a large one would need."""
    return {"method": "word2vec", "name": "words", "dataset": file, "epochs": 5, "min_count": 10}
