"""Opens what the demo downloaded, in a process that has never heard of the server, and measures it.

    python -m examples.demo.measure FOLDER TEST_SET

It prints JSON: accuracy and parameters of each classifier, and the nearest words of a few.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from core import load_model
from core.data.images import read_images
from examples.demo.specs import WORDS

CLASSIFIERS = ("teacher", "student", "distilled")


def measure_classifier(folder: Path, test: Path) -> dict[str, Any]:
    """Accuracy on images that no training has seen, and the number of parameters."""
    model = load_model(folder)
    images = read_images(test)
    names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    with torch.inference_mode():
        chosen = model(images.pixels.float() / 255).argmax(1)
    right = [
        names[str(answer)] == images.class_names[truth]
        for answer, truth in zip(chosen.tolist(), images.labels.tolist(), strict=True)
    ]
    return {
        "accuracy": sum(right) / len(right),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def nearest_words(folder: Path) -> dict[str, list[str]]:
    """The words whose vectors are nearest to those of a few."""
    model = load_model(folder)
    return {word: [near for near, _ in model.nearest(word, 5)] for word in WORDS}


if __name__ == "__main__":
    folder, test = Path(sys.argv[1]), Path(sys.argv[2])
    found = {name: measure_classifier(folder / name, test) for name in CLASSIFIERS}
    json.dump({"classifiers": found, "words": nearest_words(folder / "words")}, sys.stdout)
