"""Distillation has the loss of the paper, and its students answer like their teachers, without labels too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import method_named, trained
from safetensors.torch import load_file

from core import load_model
from core.catalog import read_spec
from core.data.examples import write_images, write_labelled_text, write_table
from core.data.profile import inspect
from core.data.tables import read_table
from core.errors import InvalidData, InvalidSpec
from core.lessons import classes
from core.lessons.losses import answer_loss, feature_loss, soft_cross_entropy

DISTIL: dict[str, Any] = {
    "method": "distillation",
    "teacher": "model-teacher",
    "student": {"architecture": "mlp", "hidden_sizes": [8]},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "data.csv"
    write_table(path)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    spec: dict[str, Any] = {"method": "classification", "epochs": 10, "batch_size": 32}
    return trained(tmp_path_factory.mktemp("teacher"), spec, dataset=table)[1]


def without_labels(table: Path, path: Path) -> Path:
    lines = [line.rpartition(",")[0] for line in table.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_soft_loss_is_the_divergence_times_temperature_squared() -> None:
    logits, teacher = torch.randn(5, 4), torch.randn(5, 4) * 3
    found = soft_cross_entropy(logits, teacher, temperature=2.5)
    for row in range(5):
        p = (teacher[row] / 2.5).exp() / (teacher[row] / 2.5).exp().sum()
        q = (logits[row] / 2.5).exp() / (logits[row] / 2.5).exp().sum()
        expected = sum(p[index] * (p[index] / q[index]).log() for index in range(4)) * 2.5**2
        torch.testing.assert_close(found[row], torch.as_tensor(expected))


def test_at_high_temperatures_logits_are_matched() -> None:
    """Hinton, Vinyals & Dean 2015, section 2.1: with zero-mean logits the gradient is their difference over classes."""
    logits, teacher = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    logits, teacher = (each - each.mean(1, keepdim=True) for each in (logits, teacher))
    logits.requires_grad_()
    soft_cross_entropy(logits, teacher, temperature=1e4).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (logits - teacher).detach() / 6, atol=1e-3, rtol=1e-2)


def test_alpha_weighs_answers_against_classes() -> None:
    logits, teacher, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 2, 1, 0])
    soft = soft_cross_entropy(logits, teacher, temperature=2.0)
    hard = -logits.log_softmax(1)[torch.arange(4), labels]
    found = answer_loss(logits, teacher, labels, temperature=2.0, alpha=0.3)
    torch.testing.assert_close(found, 0.3 * soft + 0.7 * hard)
    unknown = torch.full((4,), -1)
    torch.testing.assert_close(answer_loss(logits, teacher, unknown, temperature=2.0, alpha=1.0), soft)


def test_features_are_compared_by_squared_distance() -> None:
    own, teachers = torch.randn(3, 7), torch.randn(3, 7)
    expected = torch.stack([((own[row] - teachers[row]) ** 2).sum() / 7 for row in range(3)])
    torch.testing.assert_close(feature_loss(own, teachers), expected)


def test_a_student_learns_from_answers_alone(tmp_path: Path, table: Path, teacher: Path) -> None:
    unlabelled = without_labels(table, tmp_path / "unlabelled.csv")
    spec = {**DISTIL, "epochs": 20, "batch_size": 16, "learning_rate": 1e-2, "validation_fraction": 0.2}
    metrics, folder, _ = trained(tmp_path / "run", spec, dataset=unlabelled, teacher=teacher)
    assert metrics["valid_agreement"] > 0.85
    assert "valid_accuracy" not in metrics
    assert metrics["parameters"] < metrics["teacher_parameters"] / 10
    data = read_table(table)
    agrees = load_model(folder)(data.features).argmax(1) == load_model(teacher)(data.features).argmax(1)
    assert agrees.float().mean() > 0.85
    names = [json.loads((each / "config.json").read_text())["id2label"] for each in (folder, teacher)]
    assert names[0] == names[1]


def test_answers_given_once_teach_the_same(tmp_path: Path, table: Path, teacher: Path, monkeypatch: Any) -> None:
    spec = {**DISTIL, "epochs": 2, "objective": "hidden_states", "accumulate": 2}
    _, once, _ = trained(tmp_path / "once", spec, dataset=table, teacher=teacher)
    monkeypatch.setattr(classes, "should_answer_once", lambda *_: False)
    _, each, _ = trained(tmp_path / "each", spec, dataset=table, teacher=teacher)
    for name, tensor in load_file(once / "model.safetensors").items():
        torch.testing.assert_close(tensor, load_file(each / "model.safetensors")[name], atol=1e-4, rtol=1e-3)


def test_a_trained_model_can_be_the_student(tmp_path: Path, table: Path, teacher: Path) -> None:
    spec: dict[str, Any] = {"method": "classification", "architecture": DISTIL["student"], "steps": 20}
    _, student, _ = trained(tmp_path / "student", spec, dataset=table)
    spec = {**DISTIL, "student": "model-student", "steps": 1, "learning_rate": 1e-9}
    _, folder, _ = trained(tmp_path / "run", spec, dataset=table, teacher=teacher, student=student)
    before, after = load_file(student / "model.safetensors"), load_file(folder / "model.safetensors")
    for name, tensor in before.items():
        torch.testing.assert_close(tensor, after[name], atol=1e-6, rtol=1e-5)


def test_texts_are_distilled_in_the_teachers_tokens(tmp_path: Path) -> None:
    write_labelled_text(tmp_path / "data", documents=80)
    sizes = {"architecture": "bert", "layers": 1, "heads": 2, "max_length": 16, "vocabulary": 150}
    spec = {
        "method": "classification",
        "architecture": {**sizes, "hidden_size": 32},
        "epochs": 5,
        "batch_size": 16,
        "learning_rate": 3e-3,
    }
    _, teacher, _ = trained(tmp_path / "teacher", spec, dataset=tmp_path / "data")
    spec = {
        **DISTIL,
        "student": {**sizes, "hidden_size": 16},
        "objective": "hidden_states",
        "epochs": 8,
        "batch_size": 16,
        "learning_rate": 1e-2,
    }
    metrics, folder, _ = trained(tmp_path / "run", spec, dataset=tmp_path / "data", teacher=teacher)
    assert metrics["train_agreement"] > 0.95
    assert (folder / "tokenizer.json").read_text() == (teacher / "tokenizer.json").read_text()


def test_images_are_fitted_to_student_and_teacher(tmp_path: Path) -> None:
    write_images(tmp_path / "data", count=40)
    convnet = {"architecture": "convnet", "channels": [4, 4]}
    sizes = {}
    for size in (16, 8):
        spec = {"method": "classification", "architecture": convnet, "image_size": size, "steps": 5}
        sizes[size] = trained(tmp_path / str(size), spec, dataset=tmp_path / "data")[1]
    spec = {**DISTIL, "student": "model-student", "steps": 2, "jitter": 1, "horizontal_flip": True}
    _, folder, _ = trained(tmp_path / "run", spec, dataset=tmp_path / "data", teacher=sizes[16], student=sizes[8])
    assert json.loads((folder / "config.json").read_text())["arguments"]["shape"] == [1, 8, 8]


def test_refuses_what_cannot_be_taught(tmp_path: Path, table: Path, teacher: Path) -> None:
    write_images(tmp_path / "images", count=4)
    with pytest.raises(InvalidData, match="the teacher reads table, and the data set holds images"):
        trained(tmp_path / "1", {**DISTIL, "steps": 1, "alpha": 1}, dataset=tmp_path / "images", teacher=teacher)
    (tmp_path / "narrow").write_text("x,label\n1,a\n2,b\n")
    with pytest.raises(InvalidData, match="takes 6 columns"):
        trained(tmp_path / "2", {**DISTIL, "steps": 1}, dataset=tmp_path / "narrow", teacher=teacher)
    unlabelled = without_labels(table, tmp_path / "unlabelled.csv")
    check = method_named("distillation").check
    assert check is not None
    with pytest.raises(InvalidSpec, match="set alpha to 1"):
        check(read_spec({**DISTIL, "dataset": "file-1", "alpha": 0.5}), inspect(unlabelled))
    with pytest.raises(InvalidSpec, match="architecture bert is for text"):
        check(read_spec({**DISTIL, "dataset": "file-1", "student": {"architecture": "bert"}}), inspect(table))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_weight": 1.0}, "the objective is logits"),
        ({"objective": "hidden_states", "hidden_weight": None}, "needs hidden_weight"),
        ({"alpha": 0}, "greater than 0"),
    ],
)
def test_refuses_settings_without_effect(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        read_spec({**DISTIL, "dataset": "file-1", **settings})
