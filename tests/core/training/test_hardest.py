"""Wrong labels are among the hardest examples, and what spoils a validation is told."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import Recorder
from PIL import Image

from core.catalog import read_spec
from core.data.examples import write_images, write_labelled_text, write_table
from core.execution import train
from core.training.hardest import ExampleLosses
from core.training.leakage import count_shared
from core.training.run import Run


def trained(folder: Path, dataset: Path, **settings: Any) -> tuple[list[dict[str, str]], Recorder]:
    """The hardest examples of a run, and its news."""
    torch.set_num_threads(1)
    spec = {"method": "classification", "dataset": "file-d", "epochs": 8, "batch_size": 16, "learning_rate": 1e-2}
    run = Run(read_spec({**spec, **settings}), {"dataset": dataset}, folder, Recorder())
    train(run, lineage={})
    with (run.artifacts / "hardest_examples.csv").open(newline="") as file:
        return list(csv.DictReader(file)), run.reporter


@pytest.mark.parametrize("settings", [{}, {"validation_fraction": 0.2}])
def test_wrong_labels_are_among_the_hardest_rows_by_their_number(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_table(tmp_path / "data.csv")
    header, *lines = (tmp_path / "data.csv").read_text().splitlines()
    wrong = set(range(5, 240, 24))
    for row in wrong:
        features, _, label = lines[row].rpartition(",")
        lines[row] = f"{features},{'bca'['abc'.index(label)]}"
    (tmp_path / "data.csv").write_text("\n".join([header, *lines]) + "\n")
    found, _ = trained(tmp_path / "run", tmp_path / "data.csv", **settings)
    losses = [float(each["loss"]) for each in found]
    assert losses == sorted(losses, reverse=True)
    first = {int(each["example"]) - 1 for each in found[: 2 * len(wrong)]}
    learned = len(wrong) if not settings else round(0.6 * len(wrong))  # some are held out
    assert len(first & wrong) >= min(learned, 8)
    for each in found[:20]:
        assert each["label"] == lines[int(each["example"]) - 1].rpartition(",")[2]


def test_texts_are_quoted_and_images_pictured(tmp_path: Path) -> None:
    write_labelled_text(tmp_path / "texts", documents=40)
    bert = {"architecture": "bert", "layers": 1, "hidden_size": 16, "heads": 2, "vocabulary": 120, "max_length": 16}
    found, _ = trained(tmp_path / "1", tmp_path / "texts", architecture=bert, epochs=1)
    texts = [json.loads(line)["text"] for line in (tmp_path / "texts").read_text().splitlines()]
    assert all(each["text"] == texts[int(each["example"]) - 1] for each in found)
    write_images(tmp_path / "images", count=30)
    trained(tmp_path / "2", tmp_path / "images", epochs=1)
    with Image.open(tmp_path / "2" / "artifacts" / "hardest_examples.png") as picture:
        assert picture.width == 10 * 50 - 2


def test_the_mean_is_over_the_epochs_and_only_of_what_was_learned() -> None:
    losses = ExampleLosses(4, torch.device("cpu"))
    losses.note(torch.tensor([0, 2]), torch.tensor([1.0, 4.0]))
    losses.note(torch.tensor([2, 3]), torch.tensor([0.0, 1.5]))
    rows, means = losses.hardest(10)
    assert (rows.tolist(), means.tolist()) == ([2, 3, 0], [2.0, 1.5, 1.0])
    again = ExampleLosses(4, torch.device("cpu"))
    again.load_state_dict(losses.state_dict())
    assert torch.equal(again.hardest(10)[1], means)


def test_examples_in_both_parts_and_missing_classes_are_told(tmp_path: Path) -> None:
    lines = ["x,label", *(f"{row % 7},{'ab'[row % 2]}" for row in range(40)), "99,rare"]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    _, recorder = trained(tmp_path / "run", tmp_path / "data.csv", validation_fraction=0.2, epochs=1)
    told = "\n".join(recorder.messages)
    assert re.search(r"[78] of 8 validation examples are in the training data too", told)
    assert re.search(r"1 of 3 classes have no (validation|training) example: 'rare'", told)


def test_shared_examples_are_counted_whatever_they_are() -> None:
    numbers = torch.randn(100, 3)
    assert count_shared(numbers, torch.cat([numbers[:7], torch.randn(5, 3)])) == 7
    pixels = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)
    assert count_shared(pixels, pixels[10:13]) == 3
    assert count_shared(pixels, 255 - pixels) == 0
    assert count_shared(["a", "b"], ["b", "c", "b"]) == 2
    waves = [torch.randn(5), torch.randn(8)]
    assert count_shared(waves, [waves[1].clone(), torch.randn(8)]) == 1
