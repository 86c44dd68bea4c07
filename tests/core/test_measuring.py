"""What a job would take is reckoned from its first steps, and comes near what it takes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from contract import example_spec, method_named, prepare, run_example

from core.measuring import Stopwatch, measure, reckoned


def test_the_rest_is_reckoned_by_the_steps_behind_the_first() -> None:
    begun = [0.0, 5.0, 6.0, 7.0]  # three steps, of which the first is slow
    assert reckoned(begun, total=103, took=9.0, is_whole=False) == 9.0 + 100 * 1.0
    assert reckoned(begun, total=3, took=9.0, is_whole=True) == 9.0
    assert reckoned(begun, total=None, took=9.0, is_whole=False) is None


def test_a_slow_run_makes_three_steps_and_a_quick_one_many() -> None:
    slow, quick = Stopwatch(seconds=0.0), Stopwatch(seconds=1000.0)
    assert [slow.asked_at(step) for step in range(4)] == [None, None, None, "cancel"]
    assert {quick.asked_at(step) for step in range(100)} == {None}


@pytest.mark.parametrize("name", ["autoencoder", "classification", "word2vec"])
def test_the_estimate_comes_near_what_happens(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    example = method_named(name).example
    inputs = prepare(example, tmp_path / "inputs")
    spec = example_spec(example, epochs=60).model_dump(mode="json")
    run_example(example, tmp_path / "first", inputs=inputs, epochs=1)  # imports what only the end of a run needs
    estimate = measure(spec, inputs, tmp_path / "measured", seconds=0.3)
    started = time.monotonic()
    outcome = run_example(example, tmp_path / "run", inputs=inputs, epochs=60)
    assert outcome is not None
    assert estimate.seconds is not None
    assert 0.1 < estimate.seconds / (time.monotonic() - started) < 10  # other processes may be busy beside either
    size = sum(file.bytes for file in outcome.files)
    assert estimate.artifact_bytes == pytest.approx(size, rel=0.5)
