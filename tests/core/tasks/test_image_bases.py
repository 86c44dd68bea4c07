"""Image encoders of every make open as bases of classifiers, those made here too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from contract import method_named, prepare, run_example

from core.data.examples import write_images
from core.registry import Example

SPEC = {"method": "fine_tuning", "base": "model-base", "task": "image_classification", "steps": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "data.zip"
    write_images(path, count=16)
    return path


def efficientnet(folder: Path) -> None:
    """A classifier of other classes."""
    config = transformers.EfficientNetConfig(
        image_size=32, width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320, num_labels=5
    )
    torch.manual_seed(0)
    transformers.EfficientNetForImageClassification(config).save_pretrained(folder)
    scaling = {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))


@pytest.mark.parametrize("strategy", ["full", "frozen_encoder", "gradual"])
def test_efficientnet_learns_without_torchvision(tmp_path: Path, images: Path, strategy: str) -> None:
    efficientnet(tmp_path / "base")
    inputs = {"dataset": images, "base": tmp_path / "base"}
    run_example(Example({**SPEC, "strategy": strategy}, write_images), tmp_path / "run", inputs=inputs)
    found = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "artifacts")
    assert isinstance(found, transformers.EfficientNetForImageClassification)
    assert found.config.id2label == {0: "lying", 1: "standing"}


MADE_HERE: dict[str, dict[str, Any]] = {
    "simclr": dict(method_named("simclr").example.spec),
    "masked autoencoder": {"method": "autoencoder", "variant": "masked", "steps": 1, "batch_size": 8},
}


@pytest.mark.parametrize("name", MADE_HERE)
def test_encoders_made_here_are_bases(tmp_path: Path, images: Path, name: str) -> None:
    first = Example(MADE_HERE[name], write_images)
    run_example(first, tmp_path / "first", inputs=prepare(first, tmp_path))
    base = tmp_path / "first" / "artifacts"
    run_example(Example(SPEC, write_images), tmp_path / "run", inputs={"dataset": images, "base": base})
    found = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "artifacts")
    assert found.config.num_labels == 2
