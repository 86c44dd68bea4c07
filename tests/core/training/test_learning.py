"""A gradient step is the same however its batch is cut, and averaged weights are what is validated and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from contract import Recorder
from torch import nn

from core.spec import TrainingSpec
from core.training.batches import Batches
from core.training.learning import Learning
from core.training.parts import examples_in, parts
from core.training.run import Run

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]])


def start(folder: Path, **settings: Any) -> tuple[Run, Learning]:
    spec = TrainingSpec(method="test", dataset="file-x", learning_rate=0.1, schedule="constant", **settings)
    run = Run(spec, {}, folder, Recorder())
    network = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(network.weight)
    return run, Learning(network, spec, run, total=10)


def squared(learning: Learning) -> Any:
    return lambda part: (learning.network(part[0]) - part[1]).square().sum()


@pytest.mark.parametrize("accumulate", [1, 3, 12])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(tmp_path: Path, accumulate: int) -> None:
    _, learning = start(tmp_path, accumulate=accumulate)
    before = learning.network.weight.detach().clone()
    loss = learning.descend((X, Y), squared(learning))
    torch.testing.assert_close(loss, (X @ before.T - Y).square().mean())
    # Adam's first step is the learning rate, against the sign of the gradient
    gradient = 2 * (X @ before.T - Y).T @ X / len(X)
    torch.testing.assert_close(learning.network.weight, before - 0.1 * gradient.sign(), atol=1e-5, rtol=0)


def test_a_loss_may_be_a_mean_over_other_things_than_examples(tmp_path: Path) -> None:
    _, learning = start(tmp_path, accumulate=2)
    loss = learning.descend((X, Y), squared(learning), over=4)
    torch.testing.assert_close(loss, Y.square().sum() / 4)


def test_a_batch_that_the_device_cannot_hold_is_cut_until_it_can(tmp_path: Path) -> None:
    run, learning = start(tmp_path / "small")
    seen: list[int] = []

    def loss_of(part: Any) -> torch.Tensor:
        seen.append(len(part[0]))
        if len(part[0]) > 4:
            raise torch.OutOfMemoryError("no room")
        return squared(learning)(part)

    loss = learning.descend((X, Y), loss_of)
    assert seen == [12, 6, 3, 3, 3, 3]
    _, whole = start(tmp_path / "whole")
    torch.testing.assert_close(loss, whole.descend((X, Y), squared(whole)))
    torch.testing.assert_close(learning.network.weight, whole.network.weight)
    assert any("cut into 4 parts" in text and "12 examples" in text for text in run.reporter.messages)
    learning.descend((X, Y), loss_of)
    assert seen[6:] == [3, 3, 3, 3]


def test_one_example_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    _, learning = start(tmp_path)

    def loss_of(part: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        learning.descend((X[:2], Y[:2]), loss_of)


def test_averaged_weights_are_validated_and_kept(tmp_path: Path) -> None:
    run, learning = start(tmp_path, ema=0.5)
    expected, seen = learning.network.weight.detach().clone(), []
    for batch in run.steps(Batches(12, batch_size=12, seed=0, steps=4)):
        learning.descend((X[batch.rows], Y[batch.rows]), squared(learning))
        kept = min(0.5, (1 + run.step) / (10 + run.step))
        expected = kept * expected + (1 - kept) * learning.network.weight.detach()
        own = learning.network.weight.detach().clone()
        learning.validate(lambda: seen.append(learning.network.weight.detach().clone()))
        torch.testing.assert_close(seen[-1], expected)
        torch.testing.assert_close(learning.network.weight.detach(), own)
    assert not torch.equal(expected, own)
    learning.finish()
    torch.testing.assert_close(learning.network.weight.detach(), expected)


def test_frozen_parameters_stay_out_of_optimizer_and_checkpoint(tmp_path: Path) -> None:
    spec = TrainingSpec(method="test", dataset="file-x")
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    network[0].requires_grad_(False)
    learning = Learning(network, spec, Run(spec, {}, tmp_path, Recorder()), total=1)
    assert set(learning.state_dict()["network"]) == {"1.weight", "1.bias"}
    assert sum(len(group["params"]) for group in learning.optimizer.param_groups) == 2


class Pair(NamedTuple):
    tokens: dict[str, torch.Tensor]
    weights: torch.Tensor | None


def test_nested_batches_are_cut_alike() -> None:
    cut = parts(Pair({"ids": torch.arange(10).view(5, 2)}, None), 2)
    assert [examples_in(part) for part in cut] == [3, 2]
    assert all(isinstance(part, Pair) and part.weights is None for part in cut)
    assert torch.equal(torch.cat([part.tokens["ids"] for part in cut]), torch.arange(10).view(5, 2))
    assert len(parts(torch.arange(3), 8)) == 3
    with pytest.raises(TypeError, match="no examples"):
        parts((None,), 2)
