"""What is noticed of adversarial training that goes wrong, and how diversity is measured."""

from __future__ import annotations

import math

import pytest
import torch

from core.training.adversarial import AdversarialWatch, diversity, nearest


def told(rows: list[dict[str, float]], *, total: int = 100) -> list[str]:
    watch = AdversarialWatch(total=total)
    return [text for step, row in enumerate(rows) for text in watch.warnings(step, row)]


def test_a_generator_that_gets_no_gradient_any_more_is_dead() -> None:
    falling = [{"discriminator_loss": 0.7**step, "generator_gradient": 10 * 0.5**step} for step in range(40)]
    (warning,) = told(falling)
    assert "nothing fools the discriminator" in warning


def test_a_small_loss_alone_kills_nothing() -> None:
    assert told([{"discriminator_loss": 1e-4, "generator_gradient": 1.0} for _ in range(40)]) == []
    assert told([{"discriminator_loss": 0.6, "generator_gradient": 0.5**step} for step in range(40)]) == []


def test_samples_that_are_all_alike_have_collapsed_but_not_at_the_start() -> None:
    rows = [{"sample_diversity": 0.1 if step < 30 else 0.9} for step in range(100)]
    assert told(rows) == []
    (warning,) = told([*rows, {"sample_diversity": 0.1}])
    assert "collapsed" in warning
    assert "0.10" in warning


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_lost_weights_are_told_once(value: float) -> None:
    (warning,) = told([{"generator_loss": value}] * 3)
    assert "generator_loss" in warning
    assert "learning_rate" in warning


def test_the_nearest_other_image_is_that_of_the_slow_loop() -> None:
    images, classes = torch.rand(9, 1, 3, 3), torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 0])
    expected = []
    for i, own in enumerate(images):
        others = [(own - other).norm().item() for j, other in enumerate(images) if j != i and classes[j] == classes[i]]
        expected += [min(others)] if others else []
    assert nearest(images, classes) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_diversity_is_1_of_the_data_and_0_of_one_image() -> None:
    examples = torch.rand(50, 1, 4, 4)
    assert diversity(examples, examples) == pytest.approx(1)
    assert diversity(examples[:1].expand(50, -1, -1, -1), examples) == 0
    assert diversity(examples[:5].repeat(10, 1, 1, 1), examples) == 0
    assert diversity(examples, torch.zeros_like(examples)) == 1
    assert diversity(examples[:1], examples[:1]) == 1
