"""A row a step, however many there are, wherever a checkpoint cut them."""

from __future__ import annotations

from pathlib import Path

import torch

from core.training.checkpoint import read_checkpoint, write_checkpoint
from core.training.step_metrics import STEPS_AT_ONCE, StepMetrics


def note(told: StepMetrics, steps: range) -> None:
    for step in steps:
        told.note(step, loss=torch.tensor(1 / step), accuracy=torch.tensor(0.25), tokens=3)


def test_rows_go_on_behind_a_checkpoint(tmp_path: Path) -> None:
    count = 2 * STEPS_AT_ONCE + 7
    whole, first, second = StepMetrics(), StepMetrics(), StepMetrics()
    note(whole, range(1, count))
    note(first, range(1, STEPS_AT_ONCE + 3))
    write_checkpoint({"told": first.state_dict()}, tmp_path / "checkpoint", step=1)
    second.load_state_dict(read_checkpoint(tmp_path / "checkpoint")["told"])
    note(second, range(STEPS_AT_ONCE + 3, count))
    for name, told in {"whole": whole, "cut": second}.items():
        told.write(tmp_path / name, {"valid_loss": [(0, 9.0), (2, 0.5)]})
        assert told.tokens == 3 * (count - 1)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "cut").read_bytes()
    lines = (tmp_path / "whole").read_text().splitlines()
    assert lines[1:4] == ["1,1,0.25,,", "2,0.5,0.25,0.5,", "3,0.333333,0.25,,"]
    assert len(lines) == count


def test_what_is_no_number_is_left_empty_and_nothing_may_have_been_noted(tmp_path: Path) -> None:
    told = StepMetrics()
    write_checkpoint({"told": told.state_dict()}, tmp_path / "checkpoint", step=0)
    told.load_state_dict(read_checkpoint(tmp_path / "checkpoint")["told"])
    told.note(1, loss=torch.tensor(float("nan")), accuracy=torch.tensor(1.0), tokens=1)
    told.write(tmp_path / "file", {})
    assert (tmp_path / "file").read_text().splitlines()[1] == "1,,1,,"
