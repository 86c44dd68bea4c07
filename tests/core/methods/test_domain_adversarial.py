"""Domain-adversarial training serves a domain it has no labels of, and never looks at those it is given."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from contract import Recorder, method_named, run_example, weights_of
from sklearn.datasets import make_moons
from torch import nn

from core import load_model
from core.catalog import read_spec
from core.data.examples import write_images, write_labelled_text, write_table, write_text
from core.data.profile import inspect
from core.errors import InvalidData, InvalidSpec
from core.methods.domain_adversarial import class_loss, domain_loss, in_turn, reversal, what_failed
from core.networks.domains import new_discriminator, reversed_gradient
from core.registry import Example

Write = Callable[[Path], None]


def trained(folder: Path, inputs: dict[str, Path], **spec: Any) -> tuple[dict[str, float], Path, Recorder]:
    """Metrics, artifacts and news of a run."""
    recorder = Recorder()
    named = {name: f"file-{name}" for name in inputs}
    example = Example(spec={"method": "domain_adversarial", **spec, **named}, write_dataset=lambda path: None)
    assert run_example(example, folder, inputs=inputs, recorder=recorder) is not None
    return json.loads((folder / "artifacts" / "metrics.json").read_text()), folder / "artifacts", recorder


def write_moons(path: Path, *, angle: float, seed: int) -> None:
    """Two classes of 300 points in interlocking moons, turned by an angle in degrees."""
    x, y = make_moons(600, noise=0.06, random_state=seed)
    turn = np.deg2rad(angle)
    x = (x - [0.5, 0.25]) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    np.savez(path, x=x.astype(np.float32), y=np.array(["upper", "lower"])[y])


@pytest.fixture
def moons(tmp_path: Path) -> dict[str, Path]:
    """The toy problem of Ganin et al. 2016, section 5.1: the target is the source, turned around."""
    inputs = {"dataset": tmp_path / "source.npz", "target": tmp_path / "target.npz"}
    write_moons(inputs["dataset"], angle=0, seed=0)
    write_moons(inputs["target"], angle=35, seed=1)
    return inputs


MOONS: dict[str, Any] = {
    "architecture": {"architecture": "mlp", "hidden_sizes": [64, 64]},
    "epochs": 40,
    "batch_size": 64,
    "learning_rate": 0.01,
}


def test_serves_turned_moons_better_than_the_source_alone_does(tmp_path: Path, moons: dict[str, Path]) -> None:
    reached = {
        (weight, seed): trained(tmp_path / f"{weight}-{seed}", moons, **MOONS, domain_weight=weight, seed=seed)[0]
        for weight in (0, 3)
        for seed in (0, 1)
    }
    assert min(found["train_accuracy"] for found in reached.values()) > 0.98
    alone, adapted = (mean(reached[weight, seed]["target_accuracy"] for seed in (0, 1)) for weight in (0, 3))
    assert alone < 0.75
    assert adapted > alone + 0.05


def test_never_learns_from_the_classes_of_the_target(tmp_path: Path, moons: dict[str, Path]) -> None:
    settings = {**MOONS, "epochs": 2}
    trained(tmp_path / "known", moons, **settings)
    points = np.load(moons["target"])["x"]
    np.save(tmp_path / "points.npy", points)
    metrics, folder, _ = trained(tmp_path / "unknown", {**moons, "target": tmp_path / "points.npy"}, **settings)
    assert not [name for name in metrics if name.startswith("target")]
    assert not (folder / "target_confusion_matrix.png").exists()
    assert (tmp_path / "known" / "artifacts" / "target_confusion_matrix.png").exists()
    known, unknown = weights_of(tmp_path / "known"), weights_of(tmp_path / "unknown")
    assert all(torch.equal(tensor, unknown[name]) for name, tensor in known.items())


def test_the_gradient_is_that_of_a_game_of_two() -> None:
    torch.manual_seed(0)
    encoder, discriminator = nn.Linear(4, 3), new_discriminator(3, hidden_size=5)
    x, is_source = torch.randn(8, 4), torch.arange(8) < 4
    loss = domain_loss(discriminator(encoder(x))[:, 0], is_source).sum()
    straight = torch.autograd.grad(loss, [*encoder.parameters(), *discriminator.parameters()])
    turned_loss = domain_loss(discriminator(reversed_gradient(encoder(x), strength=0.4))[:, 0], is_source).sum()
    turned = torch.autograd.grad(turned_loss, [*encoder.parameters(), *discriminator.parameters()])
    assert torch.equal(turned_loss, loss)
    for one, other in zip(straight[:2], turned[:2], strict=True):
        torch.testing.assert_close(other, -0.4 * one)
    for one, other in zip(straight[2:], turned[2:], strict=True):
        torch.testing.assert_close(other, one)


def test_the_reversal_rises_from_nothing_as_in_the_paper() -> None:
    assert reversal(0.0) == 0.0
    assert reversal(0.1) == pytest.approx(2 / (1 + math.exp(-1)) - 1)
    assert 0.999 < reversal(1.0) < 1.0


def test_rows_without_a_class_have_no_loss() -> None:
    logits = torch.randn(3, 4)
    found = class_loss(logits, torch.tensor([2, -1, 0]))
    torch.testing.assert_close(
        found, torch.stack([-logits[0].log_softmax(0)[2], torch.zeros(()), -logits[2].log_softmax(0)[0]])
    )


def test_few_targets_are_repeated_and_taken_in_turn() -> None:
    assert in_turn(torch.tensor([4, 5, 6]), torch.tensor([10, 11])).tolist() == [4, 10, 5, 11, 6, 10]


def test_a_batch_in_parts_gives_the_update_of_the_whole(tmp_path: Path, moons: dict[str, Path]) -> None:
    settings = {**MOONS, "epochs": None, "steps": 3, "batch_size": 45}
    trained(tmp_path / "whole", moons, **settings)
    trained(tmp_path / "parts", moons, **settings, accumulate=4)
    parts = weights_of(tmp_path / "parts")
    for name, tensor in weights_of(tmp_path / "whole").items():
        torch.testing.assert_close(parts[name], tensor, atol=1e-5, rtol=1e-3)


def test_images_of_another_size_and_colour_become_like_the_source(tmp_path: Path) -> None:
    inputs = {"dataset": tmp_path / "source.zip", "target": tmp_path / "target.npy"}
    write_images(inputs["dataset"], count=40)
    np.save(inputs["target"], np.random.default_rng(0).integers(0, 255, (30, 20, 24, 3), dtype=np.uint8))
    settings = {"architecture": {"architecture": "vit", "layers": 1, "hidden_size": 16, "heads": 2}, "steps": 2}
    _, folder, _ = trained(tmp_path / "run", inputs, **settings)
    network = transformers.AutoModelForImageClassification.from_pretrained(folder)
    assert network.config.image_size == 16
    assert sorted(network.config.id2label.values()) == ["lying", "standing"]
    assert not [name for name in network.state_dict() if "discriminator" in name]


def test_texts_share_a_vocabulary(tmp_path: Path) -> None:
    inputs = {"dataset": tmp_path / "source.jsonl", "target": tmp_path / "target.txt"}
    write_labelled_text(inputs["dataset"], documents=40)
    inputs["target"].write_text("zebras graze\n" * 30, encoding="utf-8")
    architecture = {"architecture": "bert", "layers": 1, "hidden_size": 16, "heads": 2, "max_length": 16}
    _, folder, _ = trained(tmp_path / "run", inputs, architecture=architecture, steps=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.unk_token_id not in tokenizer("zebras graze the dog")["input_ids"]
    assert load_model(folder).config.num_labels == 2


def test_says_that_the_domains_are_alike_or_stay_apart() -> None:
    assert "never told the domains apart" in next(what_failed([0.5, 0.52, 0.49], 1.0))
    assert "still tells the domains apart in 99%" in next(what_failed([0.6, 0.98, 0.99, 0.99], 1.0))
    assert not list(what_failed([0.6, 0.98, 0.7, 0.6], 1.0))
    assert not list(what_failed([0.6, 0.98, 0.99, 0.99], 0.0))


def test_says_that_unknown_classes_cannot_be_judged(tmp_path: Path, moons: dict[str, Path]) -> None:
    points = np.load(moons["target"])
    np.savez(moons["target"], x=points["x"], y=np.where(points["y"] == "upper", "other", points["y"]))
    metrics, _, recorder = trained(tmp_path / "run", moons, **{**MOONS, "epochs": 1})
    assert "target_accuracy" not in metrics
    assert any("classes that the data set does not have" in text for text in recorder.messages)


@pytest.mark.parametrize(
    ("write", "message"),
    [(write_text, "the target file text"), (lambda path: write_table(path, columns=5), "have the shape")],
)
def test_refuses_a_target_of_another_kind(tmp_path: Path, write: Write, message: str) -> None:
    inputs = {"dataset": tmp_path / "source", "target": tmp_path / "target"}
    write_table(inputs["dataset"])
    write(inputs["target"])
    with pytest.raises(InvalidData, match=message) as raised:
        trained(tmp_path / "run", inputs, steps=1)
    assert raised.value.param == "target"


@pytest.mark.parametrize(
    ("settings", "write", "param"),
    [
        ({"image_size": 8}, write_table, "image_size"),
        ({"jitter": 1}, write_table, "jitter"),
        ({"target_label": "y"}, write_images, "target_label"),
        ({"architecture": {"architecture": "bert"}}, write_images, "architecture"),
    ],
)
def test_refuses_settings_without_effect(tmp_path: Path, settings: dict[str, Any], write: Write, param: str) -> None:
    write(tmp_path / "data")
    check = method_named("domain_adversarial").check
    assert check is not None
    spec = read_spec({"method": "domain_adversarial", "dataset": "file-1", "target": "file-2", **settings})
    with pytest.raises(InvalidSpec) as raised:
        check(spec, inspect(tmp_path / "data"))
    assert raised.value.param == param
