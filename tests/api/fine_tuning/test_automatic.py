"""What `auto` becomes, against the rules of the sources that it names."""

from __future__ import annotations

import math

import pytest

from api.fine_tuning.automatic import DataSize, batch_size_for, epochs_for, packed_rows, resolved
from api.fine_tuning.requests import DPOHyperparameters, Hyperparameters, ReinforcementHyperparameters


def cookbook(examples: int) -> int:
    """As OpenAI's cookbook estimates the epochs of a data set."""
    n_epochs = 3
    if examples * n_epochs < 100:
        n_epochs = min(25, 100 // examples)
    elif examples * n_epochs > 25_000:
        n_epochs = max(1, 25_000 // examples)
    return n_epochs


def test_epochs_are_those_of_the_cookbook() -> None:
    for examples in (*range(1, 200), 5_000, 8_333, 8_334, 12_500, 25_000, 25_001, 10**6):
        assert epochs_for(examples, usual=3) == cookbook(examples)


@pytest.mark.parametrize(
    ("examples", "tokens", "n_epochs", "batch_size"),
    [
        (1, None, 25, 1),
        (12, None, 8, 1),  # 96 examples in 50 steps or more
        (60, None, 3, 2),
        (180, None, 3, 8),
        (3_000, None, 3, 8),
        (10_000, None, 2, 16),  # 0.2 %: 20
        (100_000, None, 1, 64),  # 0.2 %: 200
        (180, 180 * 5_000, 3, 4),  # 6 of them have 30,000 tokens
        (180, 180 * 90_000, 3, 1),
    ],
)
def test_batches_grow_with_the_data(examples: int, tokens: int | None, n_epochs: int, batch_size: int) -> None:
    assert batch_size_for(DataSize(examples, tokens), n_epochs) == batch_size


def test_the_rate_follows_the_batch_that_is_given() -> None:
    for batch_size in (1, 2, 8, 32, 256):
        found = resolved(Hyperparameters(batch_size=batch_size), "supervised", DataSize(200))
        assert found["batch_size"] == batch_size
        assert found["learning_rate_multiplier"] == pytest.approx(math.sqrt(batch_size / 8), rel=0.02)


@pytest.mark.parametrize(
    ("width", "factor"), [(None, 1.0), (4096, 1.0), (8192, 0.58), (576, 4.6), (2048, 1.7), (16, 5.0), (20_000, 0.5)]
)
def test_narrow_models_take_larger_steps(width: int | None, factor: float) -> None:
    found = resolved(Hyperparameters(batch_size=8), "supervised", DataSize(200, width=width))
    assert found["learning_rate_multiplier"] == factor


@pytest.mark.parametrize(
    ("examples", "given", "n_epochs", "multiplier"),
    [
        (34, {}, 3, 0.5),
        (16, {}, 6, 0.18),  # of a batch of 1 it would be 0.35
        (10, {}, 10, 0.15),  # of 2: 0.5
        (16, {"n_epochs": 6}, 6, 0.35),
    ],
)
def test_examples_that_are_shown_more_often_are_learned_in_smaller_steps(
    examples: int, given: dict[str, int], n_epochs: int, multiplier: float
) -> None:
    found = resolved(Hyperparameters(**given), "supervised", DataSize(examples))
    assert (found["n_epochs"], found["learning_rate_multiplier"]) == (n_epochs, multiplier)


@pytest.mark.parametrize(
    ("pairs", "given", "steps", "multiplier"),
    [
        (51, {}, 51, 3.5),
        (51, {"batch_size": 8}, 7, 10.0),  # as if there were 50
        (800, {}, 100, 5.0),
        (800, {"n_epochs": 3}, 300, 1.7),
        (8_000, {}, 500, 1.4),
    ],
)
def test_few_steps_of_preferences_are_larger(pairs: int, given: dict[str, int], steps: int, multiplier: float) -> None:
    found = resolved(DPOHyperparameters(**given), "dpo", DataSize(pairs))
    assert math.ceil(pairs / found["batch_size"]) * found["n_epochs"] == steps
    assert found["learning_rate_multiplier"] == multiplier


def test_what_is_given_is_not_touched_and_each_method_has_its_own() -> None:
    given = {"n_epochs": 7, "batch_size": 3, "learning_rate_multiplier": 0.1}
    assert resolved(Hyperparameters(**given), "supervised", DataSize(200)) == given
    assert resolved(DPOHyperparameters(**given), "dpo", DataSize(200)) == {**given, "beta": 0.1}
    told = resolved(ReinforcementHyperparameters(**given, eval_interval=5), "reinforcement", DataSize(200))
    assert told == {**given, "compute_multiplier": 1.0, "eval_samples": 1, "eval_interval": 5}
    assert resolved(DPOHyperparameters(), "dpo", DataSize(200))["n_epochs"] == 1


def test_rows_hold_as_many_tokens_as_the_batch() -> None:
    assert packed_rows(8, DataSize(100)) is None
    assert packed_rows(8, DataSize(100, tokens=100 * 128, row_tokens=512)) == 2
    assert packed_rows(8, DataSize(100, tokens=100 * 16, row_tokens=512)) == 0
