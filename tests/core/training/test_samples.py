"""What a run shows lies in a file by its name and step; what ruins a run is said once, with the cure."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from contract import Recorder
from matplotlib.figure import Figure
from PIL import Image

from core.spec import MethodSpec
from core.training.run import Run
from core.training.watch import Watch


def test_texts_images_and_figures_are_shown(tmp_path: Path) -> None:
    run = Run(MethodSpec(method="test", dataset="file-x"), {}, tmp_path, Recorder())
    for _ in run.steps(range(3)):
        run.show("text", f"step {run.step}")
    run.show("grid", torch.rand(13, 1, 8, 8), caption="noise")
    run.show("curve", Figure(figsize=(1, 1)))
    samples = run.reporter.samples
    assert [(one.name, one.step) for one in samples] == [
        ("text", 1), ("text", 2), ("text", 3), ("grid", 3), ("curve", 3),
    ]  # fmt: skip
    assert samples[0].path.read_text() == "step 0"
    assert samples[3].caption == "noise"
    assert size_of(samples[3].path) == (10 * 50 - 2, 2 * 50 - 2)
    assert size_of(samples[4].path) == (100, 100)
    for one in samples:
        content = one.path.read_bytes()
        assert (one.bytes, one.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_sample_shown_again_leaves_links_to_the_first_alone(tmp_path: Path) -> None:
    run = Run(MethodSpec(method="test", dataset="file-x"), {}, tmp_path, Recorder())
    (tmp_path / "kept").hardlink_to(run.show("text", "first"))
    assert run.show("text", "second").read_text() == "second"
    assert (tmp_path / "kept").read_text() == "first"


def test_a_name_that_is_a_path_is_refused(tmp_path: Path) -> None:
    run = Run(MethodSpec(method="test", dataset="file-x"), {}, tmp_path, Recorder())
    with pytest.raises(ValueError, match="letters"):
        run.show("../up", "text")


def warnings_of(*losses: float, should_fall: bool = True) -> list[str]:
    watch = Watch()
    watch.should_fall = should_fall
    return [text for step, loss in enumerate(losses) for text in watch.warnings(step, {"loss": loss})]


def test_a_loss_that_is_not_finite_is_told_once() -> None:
    (told,) = warnings_of(1.0, float("nan"), float("nan"))
    assert "at step 1" in told
    assert "learning_rate" in told


def test_a_loss_that_rises_is_told_once() -> None:
    falling = [1 / (1 + step) for step in range(10)]
    (told,) = warnings_of(*falling, *([5.0] * 10))
    assert "learning_rate may be too high" in told
    assert warnings_of(*falling, *([5.0] * 10), should_fall=False) == []
    assert len(warnings_of(*falling, float("inf"), should_fall=False)) == 1


def test_falling_and_noisy_losses_are_left_alone() -> None:
    assert warnings_of(*(2 + 0.5 * (-1) ** step for step in range(50))) == []
    assert warnings_of(*(-float(step) for step in range(50))) == []
    assert warnings_of(1.0, *([1e-6] * 10), *([1e-5] * 10)) == []
