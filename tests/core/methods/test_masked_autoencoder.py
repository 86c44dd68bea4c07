"""Masked autoencoders against transformers' own, and as bases for fine-tuning."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from contract import Recorder, RequestAfter, run_example, weights_of
from sklearn.datasets import load_digits

from core import load_model
from core.data.examples import write_images
from core.methods.autoencoder import draw, losses
from core.networks.classifier import Scaling
from core.networks.masked_autoencoder import MaskedAutoencoder, sine_positions
from core.registry import Example
from tests.core.methods.autoencoding import specification, train_on

MASKED: dict[str, Any] = {
    "variant": "masked",
    "transformer": {
        "patch_size": 2,
        "layers": 1,
        "hidden_size": 32,
        "heads": 2,
        "decoder_layers": 1,
        "decoder_size": 32,
    },
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images.zip", count=60)
    return tmp_path / "images.zip"


@pytest.mark.parametrize("normalize_patches", [False, True])
def test_masked_loss_is_the_one_of_transformers(normalize_patches: bool) -> None:
    spec = specification(**MASKED, normalize_patches=normalize_patches)
    network = MaskedAutoencoder(
        (3, 8, 8), transformer=spec.transformer, mask_ratio=0.75, scaling=Scaling((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    )
    drawn = draw(torch.rand(6, 3, 8, 8), network, spec, generator=torch.Generator().manual_seed(0))
    network.mae.config.norm_pix_loss = normalize_patches
    expected = network.mae((drawn.target - network.mean) / network.std, noise=drawn.noise)
    found = losses(network, drawn, spec)
    assert expected.mask.sum(1).tolist() == [12] * 6
    torch.testing.assert_close(found["loss"].mean(), expected.loss)
    seen, said = network.seen(drawn.source, drawn.noise), network.as_examples(found["decoded"])
    is_seen = seen != 0.5
    assert is_seen.float().mean() == 0.25
    torch.testing.assert_close(seen[is_seen], drawn.target[is_seen])
    torch.testing.assert_close(said[is_seen], drawn.target[is_seen])


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The artifacts of a masked autoencoder of 8x8 digits, and its metrics."""
    folder = tmp_path_factory.mktemp("masked")
    np.savez(folder / "digits.npz", x=(load_digits().images * 15.9375).astype(np.uint8), y=load_digits().target)
    _, metrics = train_on(
        folder, folder / "digits.npz", **MASKED, mask_ratio=0.5, epochs=12, batch_size=32, learning_rate=0.01
    )
    return folder / "artifacts", metrics


def test_masked_patches_are_guessed_from_those_that_are_seen(masked: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = masked
    pixels = torch.from_numpy(load_digits().images).float()[:, None] / 16
    patches = pixels.unfold(2, 2, 2).unfold(3, 2, 2).flatten(2)
    known = ((patches - patches.mean(0)).square().mean() / pixels.var()).item()  # by the mean patch at each place
    assert metrics["train_loss"] < 0.92 * known
    assert (folder / "reconstructions.png").exists()


def test_positions_are_the_ones_of_the_paper() -> None:
    positions = sine_positions(3, width=8)
    assert positions.shape == (10, 8)
    assert not positions[0].any()
    for place, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0)], start=1):
        told = [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
        told += [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
        torch.testing.assert_close(positions[place], torch.tensor(told))


def test_a_masked_one_opens_in_transformers_whole_and_as_an_encoder(masked: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = masked
    whole = transformers.ViTMAEForPreTraining.from_pretrained(folder, mask_ratio=0.0).eval()
    encoder = transformers.AutoModel.from_pretrained(folder / "encoder").eval()
    assert type(encoder) is transformers.ViTModel
    assert json.loads((folder / "preprocessor_config.json").read_text())["size"] == {"height": 8, "width": 8}
    x = torch.randn(3, 1, 8, 8)
    in_order = torch.arange(16.0).expand(3, 16)
    with torch.no_grad():
        expected = encoder(x).last_hidden_state
        torch.testing.assert_close(whole.vit(x, noise=in_order).last_hidden_state, expected)


def test_a_masked_one_is_a_base_for_fine_tuning(masked: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = masked
    spec = {"method": "fine_tuning", "task": "image_classification", "base": "model-1", "learning_rate": 3e-3}
    example = Example(spec={**spec, "epochs": 4, "validation_fraction": 0.2}, write_dataset=lambda path: None)
    run_example(example, tmp_path, inputs={"dataset": folder.parent / "digits.npz", "base": folder})
    assert json.loads((tmp_path / "artifacts" / "metrics.json").read_text())["valid_accuracy"] > 0.6
    network = load_model(tmp_path / "artifacts")
    assert type(network) is transformers.ViTForImageClassification
    kept, moved = (module.vit.embeddings.position_embeddings for module in (load_model(folder), network))
    assert 0 < (kept - moved).abs().max() < 0.3


def test_a_masked_one_resumes_bit_for_bit(tmp_path: Path, images: Path) -> None:
    example = Example({"method": "autoencoder", **MASKED, "steps": 5, "ema": 0.9}, lambda path: None)
    run_example(example, tmp_path / "whole", inputs={"dataset": images})
    recorder, control = Recorder(), RequestAfter("interrupt", steps=2)
    assert run_example(example, tmp_path / "1", inputs={"dataset": images}, recorder=recorder, control=control) is None
    run_example(example, tmp_path / "2", inputs={"dataset": images}, resume=recorder.checkpoints[-1].path)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "2")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
