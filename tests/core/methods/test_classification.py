"""Classification learns known classes in every kind of data, with every architecture, and weighs as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from contract import trained
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight

from core import load_model
from core.catalog import method_named, read_spec
from core.data.examples import write_images, write_labelled_text, write_table
from core.data.profile import inspect
from core.errors import InvalidData, InvalidSpec
from core.networks.convnet import ConvolutionalNetwork
from core.networks.standardization import moments
from core.networks.token_ids import encode
from core.networks.word_pieces import train_word_pieces
from core.training.augmentation import shifted
from core.training.classification import Evaluation, balanced_weights, cross_entropy
from core.training.parts import parts


def write_digits(path: Path) -> None:
    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)
    np.savez(path, x=pixels, y=digits.target)


def test_learns_a_table_as_well_as_logistic_regression(tmp_path: Path) -> None:
    from core.data.tables import read_table

    write_table(tmp_path / "data", rows=400)
    spec = {"method": "classification", "validation_fraction": 0.25, "seed": 1, "epochs": 10}
    metrics, folder, _ = trained(tmp_path, spec, dataset=tmp_path / "data")
    table = read_table(tmp_path / "data")
    reference = LogisticRegression().fit(table.features, table.labels).score(table.features, table.labels)
    assert metrics["train_accuracy"] >= reference - 0.01
    assert (folder / "confusion_matrix.png").stat().st_size > 1000
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "a", "1": "b", "2": "c"}
    network = load_model(folder)
    accuracy = (network(table.features).argmax(1) == table.labels).float().mean()
    assert accuracy >= reference - 0.03


def test_learns_digits_as_images(tmp_path: Path) -> None:
    write_digits(tmp_path / "digits.npz")
    spec = {
        "method": "classification",
        "architecture": {"architecture": "convnet", "channels": [16, 32]},
        "validation_fraction": 0.2,
        "epochs": 8,
        "learning_rate": 3e-3,
        "batch_size": 64,
    }
    metrics, _, _ = trained(tmp_path, spec, dataset=tmp_path / "digits.npz")
    assert metrics["valid_accuracy"] > 0.96


def test_learns_texts_and_opens_in_transformers(tmp_path: Path) -> None:
    write_labelled_text(tmp_path / "data", documents=200)
    architecture = {
        "architecture": "bert",
        "layers": 1,
        "hidden_size": 32,
        "heads": 2,
        "max_length": 8,
        "vocabulary": 200,
    }
    spec = {
        "method": "classification",
        "architecture": architecture,
        "validation_fraction": 0.2,
        "epochs": 6,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "accumulate": 2,
    }
    metrics, folder, recorder = trained(tmp_path, spec, dataset=tmp_path / "data")
    assert metrics["valid_accuracy"] > 0.95
    assert any("are longer than 8 tokens" in text for text in recorder.messages)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        texts = tokenizer(
            ["the dog sleeps near a tree.", "a motor turns the wheel."],
            truncation=True,
            padding=True,
            return_tensors="pt",
        )
        logits = network(**texts).logits
        ours = load_model(folder)(**texts).logits
    assert [network.config.id2label[int(index)] for index in logits.argmax(1)] == ["animals", "machines"]
    torch.testing.assert_close(ours, logits)


@pytest.mark.parametrize(
    "architecture",
    [
        {"architecture": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16]},
        {"architecture": "vit", "layers": 1, "hidden_size": 32, "heads": 2},
        {"architecture": "mlp", "hidden_sizes": [16], "dropout": 0.1},
    ],
)
def test_trains_images_with_every_architecture(tmp_path: Path, architecture: dict[str, Any]) -> None:
    write_images(tmp_path / "data")
    spec = {
        "method": "classification",
        "architecture": architecture,
        "epochs": 40,
        "learning_rate": 5e-3,
        "batch_size": 16,
    }
    metrics, folder, _ = trained(tmp_path, spec, dataset=tmp_path / "data")
    assert metrics["train_accuracy"] > 0.8
    if architecture["architecture"] != "mlp":
        network = transformers.AutoModelForImageClassification.from_pretrained(folder)
        assert network.config.id2label == {0: "lying", 1: "standing"}
        processor = json.loads((folder / "preprocessor_config.json").read_text())
        assert processor["size"] == {"height": 16, "width": 16}
        assert processor["image_mean"][0] == pytest.approx(0.2, abs=0.1)


def test_every_setting_of_training_works(tmp_path: Path) -> None:
    write_table(tmp_path / "data")
    write_table(tmp_path / "validation", rows=60)
    spec = {
        "method": "classification",
        "architecture": {"architecture": "mlp", "hidden_sizes": [8]},
        "epochs": 200,
        "early_stopping": 2,
        "learning_rate": 0.1,
        "schedule": "linear",
        "gradient_clip": 0.5,
        "precision": "bfloat16",
        "checkpoint_every": 3,
        "class_weights": "balanced",
        "label_smoothing": 0.1,
    }
    files = {"dataset": tmp_path / "data", "validation": tmp_path / "validation"}
    _, folder, recorder = trained(tmp_path, spec, **files)
    assert any("without a better validation loss" in text for text in recorder.messages)
    assert recorder.checkpoints[0].step == 3
    reported = [values["valid_loss"] for _, values in recorder.metrics_seen if "valid_loss" in values]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["valid_loss"] == pytest.approx(min(reported))


def test_parts_of_a_batch_have_the_gradient_of_the_whole(tmp_path: Path) -> None:
    write_table(tmp_path / "data")
    spec = {"method": "classification", "steps": 3, "batch_size": 50, "class_weights": "balanced"}
    weights = []
    for accumulate in (1, 4):
        _, folder, _ = trained(
            tmp_path / str(accumulate), {**spec, "accumulate": accumulate}, dataset=tmp_path / "data"
        )
        weights.append(load_file(folder / "model.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=2e-4, rtol=1e-3)


def test_smoothing_spreads_the_target() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    found = cross_entropy(logits, labels, weights=weights, smoothing=0.2)
    for row, label in enumerate(labels):
        target = torch.full((4,), 0.2 / 4)
        target[label] += 0.8
        expected = -(target * logits[row].log_softmax(0)).sum() * weights[label]
        torch.testing.assert_close(found[row], expected)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0] * 5 + [1] * 30 + [2] * 2)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    torch.testing.assert_close(balanced_weights(labels, 3).double(), torch.from_numpy(expected), atol=1e-6, rtol=1e-6)


def test_f1_is_that_of_scikit_learn() -> None:
    truth, predicted = torch.randint(0, 4, (50,)), torch.randint(0, 4, (50,))
    confusion = torch.bincount(truth * 4 + predicted, minlength=16).view(4, 4)
    assert Evaluation(0.0, confusion).macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_shifting_moves_each_image_by_its_own_offset() -> None:
    images = torch.zeros(2, 1, 5, 5, dtype=torch.uint8)
    images[:, 0, 2, 2] = 9
    moved = shifted(images, torch.tensor([[1, -2], [0, 1]]))
    assert moved[0, 0, 3, 0] == 9
    assert moved[1, 0, 2, 3] == 9
    assert moved.sum() == 18


def test_standardisation_reads_pixels_as_fractions() -> None:
    pixels = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8)
    mean, std = moments(pixels)
    expected = pixels.double().movedim(1, 0).flatten(1) / 255
    torch.testing.assert_close(mean, expected.mean(1))
    torch.testing.assert_close(std, expected.std(1, correction=0))
    assert moments(torch.full((5, 2), 3.0))[1].tolist() == [1.0, 1.0]


def test_token_ids_pad_to_the_longest_of_a_batch() -> None:
    tokenizer = train_word_pieces(["the dog eats", "a cat sleeps near the old dog"] * 3, size=120, max_length=32)
    tokens = encode(["the dog", "a cat sleeps near the dog", "the"], tokenizer, max_length=6)
    assert tokens.truncated == 1
    batch = tokens[torch.tensor([2, 0])]
    expected = tokenizer(["the", "the dog"], padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert [len(part["input_ids"]) for part in parts(batch, 5)] == [1, 1]


def test_word_pieces_are_learned_the_same_way_every_time() -> None:
    texts = [f"wörter {index} and pieces, {index * 7}" for index in range(200)]
    vocabularies = [train_word_pieces(texts, size=150, max_length=16).get_vocab() for _ in range(3)]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]
    assert len(vocabularies[0]) <= 150


def test_the_convnet_takes_the_smallest_images_it_promises() -> None:
    network = ConvolutionalNetwork((1, 8, 11), 2, channels=[4, 4, 4])
    assert network(torch.rand(1, 1, 8, 11)).shape == (1, 2)


@pytest.mark.parametrize(
    ("rows", "spec", "message"),
    [
        (["x,label", "1,a", "2,a"], {}, "all 2 examples are of class 'a'; a classifier needs two or more"),
        (["x,z", "1,2", "2,3"], {}, "no classes to learn: add a column called label"),
        (["x,label", "1,a", "2,b"], {"jitter": 2}, "jitter is for images"),
        (["x,label", "1,a", "2,b"], {"image_size": 8}, "image_size is for images"),
        (["x,label", "1,a", "2,b"], {"architecture": {"architecture": "vit"}}, "vit is for images"),
        (["x,label", "1,a", "2,b"], {"text": "x"}, "text is for texts"),
    ],
)
def test_refuses_before_a_job_starts(tmp_path: Path, rows: list[str], spec: dict[str, Any], message: str) -> None:
    (tmp_path / "data.csv").write_text("\n".join(rows) + "\n")
    check = method_named("classification").check
    assert check is not None
    with pytest.raises((InvalidData, InvalidSpec), match=message):
        check(read_spec({"method": "classification", "dataset": "file-1", **spec}), inspect(tmp_path / "data.csv"))


def test_refuses_images_too_small_for_the_network(tmp_path: Path) -> None:
    write_images(tmp_path / "data", count=4)
    spec = read_spec({"method": "classification", "dataset": "file-1", "architecture": {"architecture": "resnet"}})
    with pytest.raises(InvalidSpec, match="image_size 17 or more"):
        method_named("classification").check(spec, inspect(tmp_path / "data"))  # type: ignore[misc]


def test_refuses_validation_with_other_classes(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x,label\n" + "1,a\n2,b\n" * 5)
    (tmp_path / "validation").write_text("x,label\n1,a\n2,c\n")
    files = {"dataset": tmp_path / "data", "validation": tmp_path / "validation"}
    with pytest.raises(InvalidData, match="class 'c' is not among those that are learned: 'a', 'b'"):
        trained(tmp_path, {"method": "classification", "steps": 1}, **files)
