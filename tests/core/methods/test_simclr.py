"""Contrastive pretraining: the loss by its formula, views, whole-batch gradients from parts, features worth having."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from contract import Recorder
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from core import load_model
from core.catalog import method_named, read_spec
from core.data.examples import write_images, write_text
from core.data.profile import inspect
from core.errors import InvalidData, InvalidSpec
from core.execution import train
from core.methods.simclr import nt_xent, warn_of_collapse
from core.networks.image_encoder import open_encoder
from core.training.contrast import measures
from core.training.lars import LARS
from core.training.run import Run
from core.training.views import RGB, YIQ, Augmentation, blurred, draw
from tests.fresh import FreshProcesses

SMALL = {"architecture": "resnet", "depths": [1], "hidden_sizes": [16]}
TINY_VIT = {"architecture": "vit", "layers": 1, "hidden_size": 16, "heads": 2, "patch_size": 4}
SPEC = {"method": "simclr", "dataset": "file-1"}
AS_IT_IS = {"crop_scale": 1, "crop_ratio": 1, "horizontal_flip": 0, "rotation": 0, "brightness": 0, "contrast": 0}
COLOURS_AS_THEY_ARE = {"saturation": 0, "hue": 0, "grayscale": 0, "blur": 0}


def trained(folder: Path, spec: dict[str, Any], **inputs: Path) -> tuple[dict[str, float], Path, Recorder]:
    """Metrics, artifacts and news of a run."""
    torch.set_num_threads(1)
    recorder = Recorder()
    named = {name: f"file-{name}" for name in inputs}
    run = Run(spec=read_spec({**SPEC, **named, **spec}), inputs=inputs, folder=folder, reporter=recorder)
    train(run, lineage={})
    return json.loads((run.artifacts / "metrics.json").read_text()), run.artifacts, recorder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand 8x8 digits with their classes."""
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    found = load_digits()
    np.savez(path, x=(found.images[:1000] * 15.9).astype(np.uint8), y=found.target[:1000])
    return path


@pytest.fixture(scope="module")
def colours() -> torch.Tensor:
    """Random images [6, 3, 8, 12] in bytes."""
    return torch.randint(0, 256, (6, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pretrained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], Path, Recorder]:
    spec = {"architecture": SMALL, "input_size": 16, "epochs": 12, "batch_size": 100, "validation_fraction": 0.25}
    return trained(
        tmp_path_factory.mktemp("pretrained"),
        {**spec, "learning_rate": 1e-2, "ema": 0.9, "augmentation": {"crop_scale": 0.6}},
        dataset=digits,
    )


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_loss_is_the_papers_formula(temperature: float) -> None:
    z = torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    views = [z[image, view] for image in range(5) for view in range(2)]

    def similarity(i: int, j: int) -> float:
        return math.exp(float(views[i] @ views[j] / views[i].norm() / views[j].norm()) / temperature)

    expected = []
    for i in range(10):
        partner = i + 1 if i % 2 == 0 else i - 1
        others = sum(similarity(i, k) for k in range(10) if k != i)
        expected.append(-math.log(similarity(i, partner) / others))
    torch.testing.assert_close(nt_xent(z, temperature), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_measures_are_those_of_wang_and_isola() -> None:
    z = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(2))
    on_sphere = z / z.norm(dim=-1, keepdim=True)
    found = measures(z)
    alignment = np.mean([float((a - b).square().sum()) for a, b in on_sphere])
    uniformity = []
    for view in range(2):
        distances = [
            float((on_sphere[i, view] - on_sphere[j, view]).square().sum())
            for i in range(6)
            for j in range(6)
            if i != j
        ]
        uniformity.append(math.log(np.mean([math.exp(-2 * distance) for distance in distances])))
    assert float(found["alignment"]) == pytest.approx(alignment, rel=1e-4)
    assert float(found["uniformity"]) == pytest.approx(np.mean(uniformity), rel=1e-4)
    assert float(measures(torch.ones(6, 2, 4))["spread"]) == pytest.approx(0, abs=1e-5)
    together = torch.eye(6)[:, None].expand(6, 2, 6)
    assert float(measures(together)["contrastive_accuracy"]) == 1


def test_views_that_change_nothing_are_the_image(colours: torch.Tensor) -> None:
    settings = Augmentation(**{**AS_IT_IS, **COLOURS_AS_THEY_ARE, "crop_scale": 0.999999}).for_images((3, 8, 12))
    views = draw(colours.shape, settings, seed=0, step=0).to_views(colours)
    torch.testing.assert_close(views, (colours / 255)[:, None].expand(-1, 2, -1, -1, -1), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"horizontal_flip": 1}, lambda x: x.flip(-1)),
        ({"grayscale": 1}, lambda x: (YIQ[0][:, None, None] * x).sum(-3, keepdim=True).expand_as(x)),
    ],
)
def test_views_change_what_is_asked(colours: torch.Tensor, setting: dict[str, Any], expected: Any) -> None:
    settings = Augmentation(**{**AS_IT_IS, **COLOURS_AS_THEY_ARE, **setting}).for_images((3, 8, 12))
    views = draw(colours.shape, settings, seed=0, step=0).to_views(colours)
    torch.testing.assert_close(views[:, 1], expected(colours / 255), atol=2e-3, rtol=0)


def test_a_crop_shows_a_part_of_the_image() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(4, 3, 32, 32)  # grows to the right
    quiet = {**AS_IT_IS, **COLOURS_AS_THEY_ARE, "crop_scale": 0.25, "crop_ratio": 1.0}
    views = draw(ramp.shape, Augmentation(**quiet).for_images((3, 32, 32)), seed=3, step=0).to_views(ramp)
    width = (views[..., -1] - views[..., 0]).mean((2, 3)) * 255 / 8 / 31  # part of the side that is seen
    assert 0.45 < float(width.min()) < 0.75
    assert float(width.max()) <= 1.001
    assert width.flatten().unique().numel() == 8


def test_a_turn_of_hue_keeps_brightness() -> None:
    colors = draw((50, 3, 8, 8), Augmentation(grayscale=0).for_images((3, 8, 8)), seed=0, step=0).colors
    assert colors is not None
    torch.testing.assert_close((YIQ[:1] @ colors).squeeze(2), YIQ[:1].expand(50, 2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(RGB @ YIQ, torch.eye(3), atol=1e-5, rtol=0)
    assert (colors - torch.eye(3)).abs().amax((2, 3)).gt(0.01).float().mean() > 0.5


def test_blur_is_a_gaussian() -> None:
    x = torch.zeros(2, 1, 41, 41)
    x[:, :, 20, 20] = 1
    seen = blurred(x, torch.tensor([0.0, 0.6]))
    torch.testing.assert_close(seen[0], x[0])
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 0.6) ** 2)
    np.testing.assert_allclose(seen[1, 0, 20, 18:23], weights / weights.sum() ** 2, atol=1e-6)


def test_views_are_a_function_of_seed_and_step() -> None:
    settings = Augmentation().for_images((3, 8, 8))
    places = [
        draw((4, 3, 8, 8), settings, seed=seed, step=step).places for seed, step in [(1, 5), (1, 5), (1, 6), (2, 5)]
    ]
    assert torch.equal(places[0], places[1])
    assert not torch.equal(places[0], places[2])
    assert not torch.equal(places[0], places[3])


def test_grey_images_are_not_mirrored_unless_asked() -> None:
    grey = Augmentation().for_images((1, 28, 28))
    assert (grey.horizontal_flip, grey.hue, grey.grayscale) == (0, 0, 0)
    assert draw((4, 1, 28, 28), grey, seed=0, step=0).colors is None
    assert Augmentation(horizontal_flip=0.5).for_images((1, 28, 28)).horizontal_flip == 0.5
    assert Augmentation().for_images((3, 32, 32)).horizontal_flip == 0.5
    assert Augmentation().for_images((3, 96, 96)).blur == 0.5


def test_lars_is_its_formula() -> None:
    random = np.random.default_rng(0)
    matrix, bias = random.normal(size=(3, 2)), random.normal(size=2)
    weights = [torch.nn.Parameter(torch.tensor(matrix)), torch.nn.Parameter(torch.tensor(bias))]
    optimizer = LARS(weights, lr=0.5, momentum=0.8, weight_decay=0.1, coefficient=0.02)
    velocity = [np.zeros((3, 2)), np.zeros(2)]
    for _ in range(3):
        slopes = [random.normal(size=(3, 2)), random.normal(size=2)]
        for weight, slope in zip(weights, slopes, strict=True):
            weight.grad = torch.tensor(slope)
        optimizer.step()
        decayed = slopes[0] + 0.1 * matrix
        trust = 0.02 * np.linalg.norm(matrix) / np.linalg.norm(decayed)
        velocity = [0.8 * velocity[0] + 0.5 * trust * decayed, 0.8 * velocity[1] + 0.5 * slopes[1]]
        matrix, bias = matrix - velocity[0], bias - velocity[1]
    np.testing.assert_allclose(weights[0].detach(), matrix, rtol=1e-12)
    np.testing.assert_allclose(weights[1].detach(), bias, rtol=1e-12)


def test_parts_learn_what_the_whole_batch_learns(tmp_path: Path) -> None:
    """Of a ViT, which normalises each view by itself; its head's batch normalisation sees the whole batch anyway."""
    write_images(tmp_path / "data", count=48)
    spec = {"architecture": TINY_VIT, "batch_size": 24, "steps": 4, "optimizer": "lars", "learning_rate": 5.0}
    found = []
    for accumulate in (1, 5):
        _, folder, _ = trained(
            tmp_path / str(accumulate), {**spec, "accumulate": accumulate}, dataset=tmp_path / "data"
        )
        found.append(
            {**load_file(folder / "model.safetensors"), **load_file(folder / "projection_head/model.safetensors")}
        )
    for name, tensor in found[0].items():
        torch.testing.assert_close(
            tensor, found[1][name], atol=2e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_features_become_worth_more_than_random_ones(pretrained: tuple[dict[str, float], Path, Recorder]) -> None:
    metrics, _, recorder = pretrained
    assert metrics["probe_accuracy"] > metrics["probe_accuracy_at_start"] + 0.07
    assert metrics["valid_contrastive_accuracy"] > 0.3
    assert {"loss", "alignment", "uniformity", "spread", "valid_loss"} <= metrics.keys()
    shown = {sample.name for sample in recorder.samples}
    assert shown == {"views", "neighbours"}
    assert not any("collapsed" in message or "worth no more" in message for message in recorder.messages)
    loss = [values["loss"] for _, values in recorder.metrics_seen if "loss" in values]
    assert loss[-1] < loss[0]


def test_transformers_opens_the_encoder_in_a_fresh_process(
    pretrained: tuple[dict[str, float], Path, Recorder], fresh: FreshProcesses
) -> None:
    folder = pretrained[1]
    code = (
        "import sys, torch, transformers; torch.manual_seed(0)\n"
        "network = transformers.AutoModel.from_pretrained(sys.argv[1]).eval()\n"
        "print(network(pixel_values=torch.randn(3, 1, 16, 16)).pooler_output.flatten().tolist())"
    )
    said = fresh.run(code, folder)
    assert "newly initialized" not in fresh.said()
    torch.manual_seed(0)
    with torch.no_grad():
        expected = load_model(folder)(pixel_values=torch.randn(3, 1, 16, 16)).pooler_output.flatten()
    torch.testing.assert_close(torch.tensor(json.loads(said)), expected, atol=1e-5, rtol=1e-4)
    assert load_model(folder / "projection_head").config["outputs"] == 128


def test_fine_tuning_learns_on_the_frozen_encoder(
    tmp_path: Path, digits: Path, pretrained: tuple[dict[str, float], Path, Recorder]
) -> None:
    base = pretrained[1]
    spec = {"method": "fine_tuning", "task": "image_classification", "strategy": "frozen_encoder", "base": "model-1"}
    metrics, folder, _ = trained(tmp_path, {**spec, "epochs": 30, "learning_rate": 3e-2}, dataset=digits, base=base)
    assert metrics["train_accuracy"] > 0.8
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, after[f"resnet.{name}"]) for name, tensor in before.items())
    tuned = transformers.AutoModelForImageClassification.from_pretrained(folder)
    assert tuned.config.num_labels == 10


def test_goes_on_with_an_earlier_encoder_and_its_head(
    tmp_path: Path, digits: Path, pretrained: tuple[dict[str, float], Path, Recorder]
) -> None:
    first, base, _ = pretrained
    spec: dict[str, Any] = {
        "base": "model-1",
        "steps": 1,
        "batch_size": 100,
        "learning_rate": 1e-9,
        "validation_fraction": 0.25,
    }
    spec |= {"augmentation": {"crop_scale": 0.6}}
    metrics, folder, _ = trained(tmp_path / "on", spec, dataset=digits, base=base)
    assert metrics["valid_loss"] == pytest.approx(first["valid_loss"], abs=0.1)
    assert open_encoder(folder, param="base").shape == (1, 16, 16)
    other, _, _ = trained(tmp_path / "new", {**spec, "projection_size": 16}, dataset=digits, base=base)
    assert other["valid_loss"] > first["valid_loss"] + 0.5


def test_warns_of_small_batches(tmp_path: Path) -> None:
    write_images(tmp_path / "data", count=24)
    spec = {"architecture": TINY_VIT, "batch_size": 8, "steps": 1}
    _, _, recorder = trained(tmp_path / "run", spec, dataset=tmp_path / "data")
    assert any("Each step contrasts 8 images" in message for message in recorder.messages)


def test_warns_of_collapse(tmp_path: Path) -> None:
    recorder = Recorder()
    run = Run(spec=read_spec(SPEC), inputs={}, folder=tmp_path, reporter=recorder)
    for step, z in enumerate([torch.randn(50, 2, 8), torch.ones(50, 2, 8) + 0.01 * torch.randn(50, 2, 8)]):
        run.report(spread=float(measures(z)["spread"]))
        assert warn_of_collapse(run) == bool(step)
    assert len(recorder.messages) == 1
    assert "the encoder has collapsed" in recorder.messages[0]


def test_a_vit_leaves_nothing_to_chance_when_opened(tmp_path: Path) -> None:
    write_images(tmp_path / "data", count=16)
    _, folder, _ = trained(
        tmp_path / "run", {"architecture": TINY_VIT, "batch_size": 8, "steps": 1}, dataset=tmp_path / "data"
    )
    network = load_model(folder)
    with torch.no_grad():
        output = network(pixel_values=torch.randn(2, 1, 32, 32))
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, 0].tanh())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.9}, "the optimizer is adamw"),
        ({"base": "model-1", "architecture": SMALL}, "the base has its own"),
        ({"augmentation": {"blur": 0, "blur_sigma": 1.0}}, "blur is 0"),
        ({"augmentation": {**AS_IT_IS, **COLOURS_AS_THEY_ARE}}, "would be the same"),
        (
            {"augmentation": {**AS_IT_IS, **COLOURS_AS_THEY_ARE, "blur": 1, "jitter_probability": 0.5}},
            "strengths are 0",
        ),
        ({"batch_size": 1}, "greater than or equal to 2"),
    ],
)
def test_refuses_settings_without_effect(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        read_spec({**SPEC, **settings})


def test_refuses_what_a_profile_shows_to_be_impossible(tmp_path: Path) -> None:
    check = method_named("simclr").check
    assert check is not None
    write_images(tmp_path / "grey", size=16)
    profile = inspect(tmp_path / "grey")
    with pytest.raises(InvalidSpec, match=r"augmentation\.hue would have no effect: the images are grey"):
        check(read_spec({**SPEC, "augmentation": {"hue": 0.1}}), profile)
    with pytest.raises(InvalidSpec, match=r"augmentation\.blur_sigma would have no effect"):
        check(read_spec({**SPEC, "augmentation": {"blur_sigma": 1.0}}), profile)
    with pytest.raises(InvalidSpec, match="give fewer stages"):
        check(read_spec({**SPEC, "input_size": 16}), profile)
    check(read_spec({**SPEC}), profile)


def test_refuses_bases_and_validation_that_do_not_fit(tmp_path: Path, digits: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(InvalidData, match="cannot go on with a model of type 'bert'") as raised:
        trained(tmp_path / "1", {"base": "model-1", "steps": 1}, dataset=digits, base=tmp_path / "bert")
    assert raised.value.param == "base"
    write_images(tmp_path / "larger", size=16, count=4)
    with pytest.raises(InvalidData, match="set image_size, or make them alike") as raised:
        trained(tmp_path / "2", {"steps": 1}, dataset=digits, validation=tmp_path / "larger")
    assert raised.value.param == "validation"
    write_text(tmp_path / "text")
    with pytest.raises(InvalidData, match="images"):
        trained(tmp_path / "3", {"steps": 1}, dataset=tmp_path / "text")


def test_lars_rate_follows_the_batch() -> None:
    spec: Any = read_spec({**SPEC, "optimizer": "lars", "batch_size": 1024})
    assert (spec.learning_rate, spec.momentum) == (2.4, 0.9)
    assert read_spec(spec.model_dump(mode="json")) == spec
