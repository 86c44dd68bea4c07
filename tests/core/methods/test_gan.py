"""Adversarial training against slow formulas and a distribution that is known, and each setting's promise."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from contract import Recorder, RequestAfter, run_example, weights_of

from core import load_model
from core.catalog import read_spec
from core.data.examples import write_images
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.methods.gan import (
    Draw,
    GanSpec,
    check,
    discriminator_losses,
    frozen,
    generator_losses,
    judge,
)
from core.networks.adversarial import Discriminator
from core.registry import Example

VARIANTS = ("relativistic", "dcgan", "wgan_gp")
SMALL = {"channels": [8, 16], "latent_size": 8, "batch_size": 32, "samples": 4}


def train_on(folder: Path, dataset: Path, **spec: Any) -> tuple[Any, dict[str, Any], Recorder]:
    recorder = Recorder()
    example = Example(spec={"method": "gan", **SMALL, **spec}, write_dataset=lambda path: None)
    run_example(example, folder, inputs={"dataset": dataset}, recorder=recorder)
    metrics = json.loads((folder / "artifacts" / "metrics.json").read_text())
    return load_model(folder / "artifacts"), metrics, recorder


def specification(**settings: Any) -> GanSpec:
    return read_spec({"method": "gan", "dataset": "file-1", **settings})  # type: ignore[return-value]


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """200 images of 16x16: the left half is bright in class 0, the right half in class 1, by a random amount."""
    random = np.random.default_rng(0)
    pixels, labels = np.full((200, 16, 16), 20, np.uint8), np.arange(200) % 2
    for image, label in zip(pixels, labels, strict=True):
        image[:, 8 * label : 8 * label + 8] = random.integers(150, 250)
    np.savez(tmp_path / "halves.npz", x=pixels, y=labels)
    return tmp_path / "halves.npz"


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_paints_the_class_that_is_asked_for_in_the_brightness_of_the_data(
    variant: str, tmp_path: Path, halves: Path
) -> None:
    more = {"critic_steps": 2} if variant == "wgan_gp" else {}
    network, metrics, _ = train_on(
        tmp_path, halves, variant=variant, conditional=True, steps=150, learning_rate=3e-3, ema=0.95, **more
    )
    codes = torch.randn(200, 8, generator=torch.Generator().manual_seed(5))
    for label in (0, 1):
        with torch.no_grad():
            images = network(codes, torch.full((200,), label))
        bright, dark = images[..., :8].mean((1, 2, 3)), images[..., 8:].mean((1, 2, 3))
        if label == 1:
            bright, dark = dark, bright
        assert bright.mean() == pytest.approx(200 / 255, abs=0.15)
        assert dark.mean() == pytest.approx(20 / 255, abs=0.15)
    assert all(math.isfinite(value) for value in metrics.values())


def test_penalties_are_those_of_the_slow_loop() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator((1, 8, 8), channels=[4], classes=3)
    pixels = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    real, painted = pixels.float() / 255, torch.rand(5, 1, 8, 8)
    classes, mix = torch.tensor([0, 1, 2, 1, 0]), torch.rand(5, 1, 1, 1)
    drawn = Draw(pixels, classes, torch.zeros(5, 2), None)
    found = judge(discriminator, drawn, painted, specification(gradient_penalty=3.0))
    gradients = [[gradient(discriminator, x, classes[row]) for x in (real[row], painted[row])] for row in range(5)]
    slow = torch.tensor([1.5 * sum(g.square().sum().item() for g in pair) for pair in gradients])
    torch.testing.assert_close(found.penalty, slow)
    torch.testing.assert_close(found.real, discriminator(real, classes))
    torch.testing.assert_close(found.painted, discriminator(painted, classes))

    found = judge(discriminator, drawn._replace(mix=mix), painted, specification(variant="wgan_gp"))
    blends = mix * real + (1 - mix) * painted
    norms = torch.stack([gradient(discriminator, blends[row], classes[row]).norm() for row in range(5)])
    torch.testing.assert_close(found.penalty, 10 * (norms - 1).square())


def gradient(discriminator: Discriminator, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Of the score, by pixels from -1 to 1, by differences."""
    double = discriminator.double()
    found = torch.zeros(image.numel(), dtype=torch.float64)
    for place in range(image.numel()):
        moved = torch.zeros(image.numel(), dtype=torch.float64)
        moved[place] = 1e-6
        ends = [image.double() + sign * moved.view_as(image) / 2 for sign in (1, -1)]
        with torch.no_grad():
            above, below = (double(end[None], label[None]) for end in ends)
        found[place] = (above - below) / 2e-6
    discriminator.float()
    return found.float()


def test_the_penalty_moves_the_weights_as_differences_say() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator((1, 8, 8), channels=[3]).double()
    drawn = Draw(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8), None, torch.zeros(4, 2), None)
    painted, weight = torch.rand(4, 1, 8, 8, dtype=torch.float64), discriminator.head.weight

    def penalty() -> torch.Tensor:
        return judge(discriminator, drawn, painted, specification()).penalty.sum()

    penalty().backward()
    assert weight.grad is not None
    found = weight.grad[0, 7].item()
    ends = []
    for moved in (1e-6, -2e-6):
        with torch.no_grad():
            weight[0, 7] += moved
        ends.append(penalty().item())
    assert found == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_losses_are_those_of_the_papers() -> None:
    real, painted = torch.tensor([0.3, -2.0, 5.0]), torch.tensor([1.0, 0.5, -4.0])
    expected = {
        "relativistic": (-(real - painted).sigmoid().log(), -(painted - real).sigmoid().log()),
        "dcgan": (-real.sigmoid().log() - (1 - painted.sigmoid()).log(), -painted.sigmoid().log()),
        "wgan_gp": (painted - real, -painted),
    }
    for variant, (of_discriminator, of_generator) in expected.items():
        torch.testing.assert_close(discriminator_losses(real, painted, variant), of_discriminator)  # type: ignore[arg-type]
        torch.testing.assert_close(generator_losses(real, painted, variant), of_generator)  # type: ignore[arg-type]


def test_the_generators_step_leaves_no_gradient_in_the_discriminator() -> None:
    discriminator = Discriminator((1, 8, 8), channels=[4])
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    with frozen(discriminator):
        scores = discriminator(images)
    scores.sum().backward()
    assert images.grad is not None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())


@pytest.mark.parametrize("variant", ["dcgan", "wgan_gp"])
def test_resumed_it_ends_where_an_undisturbed_run_does(variant: str, tmp_path: Path, halves: Path) -> None:
    example = Example(spec={"method": "gan", **SMALL, "variant": variant, "steps": 6}, write_dataset=lambda path: None)
    recorder, inputs = Recorder(), {"dataset": halves}
    run_example(example, tmp_path / "whole", inputs=inputs)
    stop = RequestAfter("interrupt", steps=2)
    run_example(example, tmp_path / "first", inputs=inputs, recorder=recorder, control=stop)
    run_example(example, tmp_path / "second", inputs=inputs, resume=recorder.checkpoints[-1].path)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "second")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_averaged_generator_is_kept(tmp_path: Path, halves: Path) -> None:
    kept = {}
    for ema in (None, 0.0, 0.9):
        kept[ema] = train_on(tmp_path / str(ema), halves, steps=12, ema=ema)[0].state_dict()
    assert all(torch.equal(tensor, kept[0.0][name]) for name, tensor in kept[None].items())
    assert not torch.equal(kept[None]["layers.0.weight"], kept[0.9]["layers.0.weight"])


def test_grids_are_shown_as_often_as_asked_and_at_the_end(tmp_path: Path, halves: Path) -> None:
    _, metrics, recorder = train_on(tmp_path, halves, conditional=True, steps=7, sample_every=3)
    assert [sample.step for sample in recorder.samples] == [3, 6, 7]
    assert {sample.name for sample in recorder.samples} == {"samples"}
    assert "a row each of 0, 1" in recorder.samples[0].caption
    assert (tmp_path / "artifacts" / "samples.png").read_bytes() == recorder.samples[-1].path.read_bytes()
    assert {"discriminator_loss", "generator_loss", "discriminator_accuracy", "generator_accuracy"} <= metrics.keys()
    assert {"sample_diversity", "generator_gradient"} <= metrics.keys()


def test_epochs_are_passes_of_the_discriminator(tmp_path: Path, halves: Path) -> None:
    for variant, steps in {"relativistic": 14, "wgan_gp": 3}.items():
        _, _, recorder = train_on(tmp_path / variant, halves, variant=variant, epochs=2)
        assert recorder.steps[-1] == steps


@pytest.mark.parametrize("settings", [{}, {"conditional": True}, {"variant": "dcgan", "image_size": 24}])
def test_onnx_paints_the_same_images(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_images(tmp_path / "images.zip", count=40)
    network, _, _ = train_on(tmp_path, tmp_path / "images.zip", steps=5, **settings)
    inputs = {"codes": torch.randn(6, 8)}
    if "conditional" in settings:
        inputs["classes"] = torch.tensor([0, 1, 1, 0, 1, 0])
    session = onnxruntime.InferenceSession(tmp_path / "artifacts" / "generator.onnx")
    (images,) = session.run(["images"], {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(images), network(*inputs.values()), atol=1e-5, rtol=1e-4)
    assert images.shape[2] == settings.get("image_size", 16)


def test_colours_mirroring_and_lower_precision(tmp_path: Path) -> None:
    np.save(tmp_path / "colours.npy", np.random.default_rng(0).integers(0, 255, (30, 8, 8, 3), dtype=np.uint8))
    spec = {"channels": [8], "steps": 4, "horizontal_flip": True, "precision": "bfloat16", "accumulate": 2}
    network, metrics, _ = train_on(tmp_path, tmp_path / "colours.npy", **spec)
    assert network(torch.randn(2, 8)).shape == (2, 3, 8, 8)
    assert all(math.isfinite(value) for value in metrics.values())
    judge = load_model(tmp_path / "artifacts" / "discriminator")
    assert judge(torch.rand(2, 3, 8, 8)).shape == (2,)


def test_a_class_must_be_named_where_there_are_classes(tmp_path: Path, halves: Path) -> None:
    network, _, _ = train_on(tmp_path, halves, steps=1, conditional=True)
    with pytest.raises(ValueError, match="codes, classes"):
        network(torch.randn(2, 8))
    judge = load_model(tmp_path / "artifacts" / "discriminator")
    with pytest.raises(ValueError, match="images, classes"):
        judge(torch.rand(2, 1, 16, 16))


def test_each_variant_has_its_papers_settings() -> None:
    assert specification(variant="wgan_gp").critic_steps == 5
    assert specification(variant="wgan_gp").gradient_penalty == 10
    assert specification(variant="dcgan").betas == (0.5, 0.999)
    assert specification(variant="dcgan", learning_rate=1e-3).learning_rate == 1e-3
    assert specification().betas == (0, 0.99)
    assert specification(epochs=3).steps is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "dcgan", "gradient_penalty": 1.0}, "gradient_penalty would have no effect"),
        ({"critic_steps": 5}, "critic_steps would have no effect"),
        ({"variant": "wgan_gp", "critic_steps": None}, "needs critic_steps"),
        ({"gradient_penalty": None}, "needs gradient_penalty"),
        ({"betas": None}, "betas"),
        ({"validation_fraction": 0.1}, "validation_fraction would have no effect"),
        ({"early_stopping": 3}, "early_stopping would have no effect"),
        ({"epochs": 2, "steps": 10}, "not both"),
        ({"variant": "lsgan"}, "variant"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        specification(**settings)


@pytest.mark.parametrize(
    ("settings", "shape", "param", "cure"),
    [
        ({}, (1, 27, 27), "image_size", "28"),
        ({}, (3, 50, 50), "image_size", "48"),
        ({}, (1, 5, 5), "image_size", "8"),
        ({}, None, "image_size", "64"),
        ({"channels": [8, 16, 32]}, (1, 28, 28), "channels", "multiple of 8"),
    ],
)
def test_sizes_that_cannot_be_painted_are_refused(
    settings: dict[str, Any], shape: tuple[int, ...] | None, param: str, cure: str
) -> None:
    profile = Profile(kind=Kind.IMAGES, format="", examples=50, shape=shape)
    with pytest.raises(InvalidSpec, match=cure) as caught:
        check(specification(**settings), profile)
    assert caught.value.param == param


@pytest.mark.parametrize("classes", [None, {"all": 50}])
def test_conditional_needs_classes(classes: dict[str, int] | None) -> None:
    profile = Profile(kind=Kind.IMAGES, format="", examples=50, shape=(1, 28, 28), classes=classes)
    with pytest.raises(InvalidData, match="folder for each class") as caught:
        check(specification(conditional=True), profile)
    assert caught.value.param == "conditional"
    check(specification(), profile)


def test_one_image_is_too_few() -> None:
    with pytest.raises(InvalidData, match="two images"):
        check(specification(), Profile(kind=Kind.IMAGES, format="", examples=1, shape=(1, 28, 28)))


@pytest.mark.parametrize("side", [8, 28, 32, 48, 64, 96, 128])
def test_usual_sizes_are_taken(side: int) -> None:
    check(specification(), Profile(kind=Kind.IMAGES, format="", examples=9, shape=(3, side, side)))
