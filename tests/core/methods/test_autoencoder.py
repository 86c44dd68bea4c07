"""Autoencoders against principal components, slow formulas, and each setting's promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from contract import Recorder, run_example
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from core.data.examples import write_images, write_table
from core.data.images import read_images
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.methods.autoencoder import check, draw, losses
from core.networks.autoencoder import Autoencoder
from core.registry import Example
from core.training import reconstruction
from tests.core.methods.autoencoding import specification, train_on


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """1,797 digits of 8x8 pixels as an archive of images."""
    path = tmp_path / "digits.npy"
    np.save(path, (load_digits().images * 15.9375).astype(np.uint8)[:, None])
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images.zip", count=60)
    return tmp_path / "images.zip"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    rows = random.normal(size=(600, 3)) @ random.normal(size=(3, 12)) + 0.3 * random.normal(size=(600, 12))
    np.save(tmp_path / "table.npy", (rows * np.geomspace(1, 100, 12) + 1000).astype(np.float32))
    return tmp_path / "table.npy"


def test_with_equal_codes_it_beats_principal_components(tmp_path: Path, digits: Path) -> None:
    _, metrics = train_on(tmp_path, digits, code_size=8, hidden_sizes=[64], epochs=20, validation_fraction=0.2)
    pixels = np.load(digits).reshape(-1, 64) / 255
    pca = PCA(8).fit(pixels)
    error = np.square(pca.inverse_transform(pca.transform(pixels)) - pixels).sum(1).mean()
    assert metrics["valid_squared_error"] < 0.9 * error


def test_a_linear_one_reaches_the_optimum_of_principal_components(tmp_path: Path, table: Path) -> None:
    _, metrics = train_on(tmp_path, table, code_size=3, hidden_sizes=[], epochs=80, batch_size=32, learning_rate=0.01)
    rows = np.load(table).astype(np.float64)
    rows = (rows - rows.mean(0)) / rows.std(0)
    optimum = PCA(3).fit(rows).explained_variance_
    left = (rows.var(0).sum() * len(rows) / (len(rows) - 1) - optimum.sum()) * (len(rows) - 1) / len(rows)
    assert left <= metrics["train_squared_error"] < 1.02 * left


def test_tables_come_back_in_their_own_units(tmp_path: Path, table: Path) -> None:
    network, _ = train_on(tmp_path, table, code_size=4, epochs=40)
    rows = torch.from_numpy(np.load(table))
    error = (network(rows) - rows).square().mean(0) / rows.var(0)
    assert network.encode(rows).shape == (600, 4)
    assert error.max() < 0.5


@pytest.mark.parametrize("noise", ["masking", "gaussian"])
def test_denoising_brings_corrupted_inputs_nearer_to_the_truth(tmp_path: Path, digits: Path, noise: str) -> None:
    network, _ = train_on(
        tmp_path, digits, variant="denoising", noise=noise, noise_level=0.3, code_size=16, hidden_sizes=[128], epochs=15
    )
    clean = torch.from_numpy(np.load(digits)).float() / 255
    spec = specification(variant="denoising", noise=noise, noise_level=0.3)
    corrupted = draw(clean, network, spec, generator=torch.Generator().manual_seed(7)).source
    before, after = (corrupted - clean).square().sum(), (network(corrupted) - clean).square().sum()
    assert after < 0.6 * before


def test_masking_takes_the_fraction_that_was_asked_for() -> None:
    network = Autoencoder([400], code_size=2, sizes=[4])
    spec = specification(variant="denoising", noise_level=0.25)
    drawn = draw(torch.ones(50, 400), network, spec, generator=torch.Generator().manual_seed(0))
    assert drawn.source.mean().item() == pytest.approx(0.75, abs=0.01)
    assert torch.equal(drawn.target, torch.ones(50, 400))


def test_divergence_is_the_one_between_distributions() -> None:
    mean, log_variance = torch.randn(6, 5), torch.randn(6, 5)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(reconstruction.kl_divergence(mean, log_variance), expected)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_variational_loss_is_the_negative_evidence_lower_bound(beta: float) -> None:
    network = Autoencoder([1, 4, 4], code_size=3, sizes=[8], is_variational=True)
    spec = specification(variant="variational", beta=beta, binarize=True)
    drawn = draw(torch.rand(10, 1, 4, 4), network, spec, generator=torch.Generator().manual_seed(0))
    assert set(drawn.target.unique().tolist()) <= {0.0, 1.0}
    found = losses(network, drawn, spec)
    assert network.log_variance is not None
    hidden = network.encoder(drawn.source)
    posterior = Normal(network.code(hidden), (network.log_variance(hidden) / 2).exp())
    codes = posterior.mean + drawn.noise * posterior.stddev
    likelihood = Independent(Bernoulli(logits=network.decoder(codes)), 3).log_prob(drawn.target)
    expected = beta * kl_divergence(posterior, Normal(0.0, 1.0)).sum(1) - likelihood
    torch.testing.assert_close(found["loss"], expected)


def test_variational_samples_look_like_the_data(tmp_path: Path, images: Path) -> None:
    network, metrics = train_on(
        tmp_path, images, variant="variational", code_size=2, hidden_sizes=[64], epochs=60, batch_size=16
    )
    assert metrics["train_kl_divergence"] > 0.5
    samples = network.decode(torch.randn(200, 2, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        assert abs(samples.mean().item() - pixels_of(images).mean().item()) < 0.05
    assert (tmp_path / "artifacts" / "samples.png").exists()


def pixels_of(path: Path) -> torch.Tensor:
    return read_images(path).pixels.float() / 255


@pytest.mark.parametrize("accumulate", [3, 32])
@pytest.mark.parametrize("variant", ["denoising", "variational"])
def test_a_batch_in_parts_gives_the_update_of_the_whole(
    tmp_path: Path, images: Path, variant: str, accumulate: int
) -> None:
    settings = {"variant": variant, "code_size": 4, "hidden_sizes": [16], "batch_size": 32, "steps": 3}
    whole, _ = train_on(tmp_path / "whole", images, **settings)
    parts, _ = train_on(tmp_path / "parts", images, accumulate=accumulate, **settings)
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], weight, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_short_arithmetic_learns_the_same(tmp_path: Path, images: Path, precision: str) -> None:
    settings = {"code_size": 4, "hidden_sizes": [32], "epochs": 20, "gradient_clip": 100.0}
    _, full = train_on(tmp_path / "full", images, precision="float32", **settings)
    _, short = train_on(tmp_path / "short", images, precision=precision, **settings)
    assert short["train_loss"] != full["train_loss"]
    assert short["train_loss"] == pytest.approx(full["train_loss"], rel=0.05)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path, images: Path) -> None:
    _, metrics = train_on(
        tmp_path, images, code_size=8, hidden_sizes=[256], epochs=400, learning_rate=0.01, batch_size=16,
        validation=images_elsewhere(tmp_path), early_stopping=3,
    )  # fmt: skip
    losses_seen = [values["valid_loss"] for _, values in metrics["seen"] if "valid_loss" in values]
    assert len(losses_seen) < 400
    assert metrics["valid_loss"] == pytest.approx(min(losses_seen), rel=1e-6)
    assert any("without a better validation loss" in text for text in metrics["said"])


def images_elsewhere(folder: Path) -> Path:
    write_images(folder / "validation.zip", count=20)
    return folder / "validation.zip"


def test_weight_decay_shrinks_weights_and_steps_replace_epochs(tmp_path: Path, images: Path) -> None:
    settings = {"code_size": 4, "hidden_sizes": [16], "steps": 30, "schedule": "constant", "warmup": 0.0}
    free, _ = train_on(tmp_path / "free", images, **settings)
    decayed, metrics = train_on(tmp_path / "decayed", images, weight_decay=5.0, **settings)
    assert metrics["seen"][-1][0] == 30
    assert decayed.code.weight.norm() < 0.9 * free.code.weight.norm()


def test_checkpoints_come_as_often_as_asked(tmp_path: Path, images: Path) -> None:
    recorder = Recorder()
    spec = {"method": "autoencoder", "hidden_sizes": [8], "code_size": 2, "steps": 9, "checkpoint_every": 4}
    example = Example(spec=spec, write_dataset=lambda path: None)
    run_example(example, tmp_path, inputs={"dataset": images}, recorder=recorder)
    assert [file.step for file in recorder.checkpoints] == [4, 8]


def test_sparsity_is_the_divergence_from_coins_that_seldom_fall_on_one() -> None:
    codes = torch.rand(7, 5)
    expected = kl_divergence(Bernoulli(probs=torch.tensor(0.1)), Bernoulli(probs=codes.mean(0))).sum()
    torch.testing.assert_close(reconstruction.sparsity_divergence(codes, 0.1), expected)


def test_sparse_units_are_as_active_as_wanted(tmp_path: Path, digits: Path) -> None:
    settings = {"variant": "sparse", "code_size": 64, "hidden_sizes": [64], "epochs": 12, "batch_size": 64}
    network, metrics = train_on(tmp_path / "sparse", digits, sparsity_target=0.1, sparsity_weight=3.0, **settings)
    codes = network.encode(torch.from_numpy(np.load(digits)).float() / 255)
    assert metrics["train_activation"] == pytest.approx(codes.mean().item(), abs=1e-5)
    assert 0.08 < metrics["train_activation"] < 0.14
    assert metrics["train_active_fraction"] < 0.6
    assert not [text for text in metrics["said"] if "not sparse" in text]
    _, metrics = train_on(tmp_path / "dense", digits, sparsity_target=0.1, sparsity_weight=1e-6, **settings)
    assert metrics["train_activation"] > 0.3
    assert [text for text in metrics["said"] if "not sparse: the mean activation" in text]


def test_shows_reconstructions_at_a_few_epochs(tmp_path: Path, images: Path) -> None:
    recorder = Recorder()
    spec = {"method": "autoencoder", "hidden_sizes": [8], "code_size": 2, "epochs": 9, "batch_size": 60}
    run_example(Example(spec, lambda path: None), tmp_path, inputs={"dataset": images}, recorder=recorder)
    assert [sample.step for sample in recorder.samples] == [1, 2, 4, 8]
    assert {sample.media_type for sample in recorder.samples} == {"image/png"}


def test_says_what_went_wrong() -> None:
    metrics = {"train_squared_error": 9.9, "train_kl_divergence": 0.01, "train_activation": 0.4}
    said = list(reconstruction.what_failed(metrics, variance=10, sparsity_target=0.1))
    assert len(said) == 3
    assert "hardly better than the mean" in said[0]
    assert "Lower beta" in said[1]
    assert "Raise sparsity_weight" in said[2]
    assert not list(reconstruction.what_failed({"train_squared_error": 5.0}, variance=10))


def test_convolutions_halve_and_double_the_image(tmp_path: Path, images: Path) -> None:
    network, metrics = train_on(
        tmp_path, images, architecture="convolutional", channels=[4, 8], code_size=6, batch_size=8
    )
    assert network.encode(torch.rand(2, 1, 16, 16)).shape == (2, 6)
    assert network(torch.rand(2, 1, 16, 16)).shape == (2, 1, 16, 16)
    variance = pixels_of(images).var(0, correction=0).sum().item()
    assert metrics["train_squared_error"] < 0.8 * variance


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_sizes": [16]},
        {"architecture": "convolutional", "channels": [4, 8]},
        {"variant": "variational", "hidden_sizes": [16]},
        {"variant": "sparse", "hidden_sizes": [16]},
    ],
)
def test_onnx_computes_the_same_codes_and_reconstructions(
    tmp_path: Path, images: Path, settings: dict[str, Any]
) -> None:
    network, _ = train_on(tmp_path, images, code_size=4, steps=5, **settings)
    check_onnx(network, tmp_path / "artifacts", pixels_of(images))


def test_onnx_of_a_table_standardises_inside(tmp_path: Path, table: Path) -> None:
    network, _ = train_on(tmp_path, table, code_size=4, steps=5)
    check_onnx(network, tmp_path / "artifacts", torch.from_numpy(np.load(table)))


@torch.no_grad()
def check_onnx(network: Any, folder: Path, x: torch.Tensor) -> None:
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    codes, reconstruction = session.run(["codes", "reconstruction"], {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(codes), network.encode(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(reconstruction), network(x), atol=1e-4, rtol=1e-4)
    decoder = onnxruntime.InferenceSession(folder / "decoder.onnx")
    (decoded,) = decoder.run(["reconstruction"], {"codes": codes})
    np.testing.assert_allclose(decoded, reconstruction, atol=1e-4, rtol=1e-4)


def test_defaults_do_for_a_small_table(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv")
    network, metrics = train_on(tmp_path, tmp_path / "table.csv")
    assert network.config["code_size"] == 3
    assert metrics["train_squared_error"] < 2  # of 6, the columns' variances together


def test_a_variational_table_is_gaussian_with_unit_variance() -> None:
    network = Autoencoder([5], code_size=2, sizes=[8], is_variational=True)
    spec = specification(variant="variational")
    drawn = draw(torch.randn(9, 5), network, spec, generator=torch.Generator().manual_seed(0))
    found = losses(network, drawn, spec)
    expected = -Independent(Normal(found["decoded"], 1.0), 1).log_prob(drawn.target) - 2.5 * np.log(2 * np.pi)
    torch.testing.assert_close(found["reconstruction_loss"], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_level": 0.2}, "denoising"),
        ({"beta": 2.0}, "variational"),
        ({"channels": [8]}, "dense"),
        ({"architecture": "convolutional", "hidden_sizes": [8]}, "channels"),
        ({"variant": "denoising", "noise_level": 1.0}, "less than 1"),
        ({"early_stopping": 3}, "validation"),
        ({"sparsity_weight": 0.1}, "for the sparse variant"),
        ({"variant": "sparse", "sparsity_target": None}, "needs sparsity_target"),
        ({"mask_ratio": 0.5}, "for the masked variant"),
        ({"architecture": "vision_transformer"}, "for the masked variant"),
        ({"variant": "masked", "architecture": "dense"}, "can have no other"),
        ({"variant": "masked", "code_size": 8}, "code_size would have no effect"),
        ({"variant": "masked", "binarize": True}, "binarize would have no effect"),
        ({"variant": "masked", "transformer": {"heads": 2, "decoder_size": 6}}, "decoder_size 6 is not a multiple"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        specification(**settings)


@pytest.mark.parametrize(
    ("settings", "kind", "shape", "param"),
    [
        ({"architecture": "convolutional"}, Kind.TABLE, (9,), "architecture"),
        ({"loss": "cross_entropy"}, Kind.TABLE, (9,), "loss"),
        ({"binarize": True}, Kind.TABLE, (9,), "binarize"),
        ({"image_size": 8}, Kind.TABLE, (9,), "image_size"),
        ({"code_size": 9}, Kind.TABLE, (9,), "code_size"),
        ({"architecture": "convolutional"}, Kind.IMAGES, (1, 30, 30), "channels"),
        ({"variant": "masked"}, Kind.TABLE, (9,), "variant"),
        ({"variant": "masked"}, Kind.IMAGES, (1, 28, 32), "image_size"),
        ({"variant": "masked", "image_size": 30}, Kind.IMAGES, (1, 28, 28), "image_size"),
        ({"variant": "masked", "mask_ratio": 0.9}, Kind.IMAGES, (1, 8, 8), "mask_ratio"),
    ],
)
def test_what_the_profile_shows_to_be_impossible_is_refused(
    settings: dict[str, Any], kind: Kind, shape: tuple[int, ...], param: str
) -> None:
    profile = Profile(kind=kind, format="", examples=50, columns=(), classes=None, shape=shape, words=None)
    with pytest.raises(InvalidSpec) as caught:
        check(specification(**settings), profile)
    assert caught.value.param == param


def test_validation_of_another_shape_is_refused(tmp_path: Path, images: Path) -> None:
    write_images(tmp_path / "other.zip", count=4, size=12)
    with pytest.raises(InvalidData, match="alike"):
        train_on(tmp_path, images, validation=tmp_path / "other.zip")
