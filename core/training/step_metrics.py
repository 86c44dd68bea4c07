"""What every step of a run found, none left out or averaged, as a CSV file; and how many tokens it learned from."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

STEP_METRICS = "step_metrics.csv"
HEADER = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
STEPS_AT_ONCE = 256  # that stay on their device


class StepMetrics:
    """Loss and accuracy step by step; tracked by a run, it goes on where a checkpoint left off."""

    def __init__(self) -> None:
        self.tokens = 0  # that were learned from, over all epochs
        self._rows = torch.empty(0, 3, dtype=torch.float64)  # step, loss, accuracy
        self._new: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def note(self, step: int, *, loss: torch.Tensor, accuracy: torch.Tensor, tokens: int) -> None:
        """One step, whose number is counted from 1; the numbers are 0-d, and stay on their device for a while."""
        self.tokens += tokens
        self._new.append((step, loss.detach(), accuracy.detach()))
        if len(self._new) == STEPS_AT_ONCE:
            self._gather()

    def write(self, path: Path, validation: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        """Write a row a step, empty where a value is missing; `validation`: (step, value) of the names in HEADER."""
        self._gather()
        found = {name: {int(step): value for step, value in points} for name, points in validation.items()}
        with path.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(HEADER)
            for step, *values in self._rows.tolist():
                values += [found.get(name, {}).get(int(step), math.nan) for name in HEADER[3:]]
                lines.writerow([int(step), *(f"{value:.6g}" if math.isfinite(value) else "" for value in values)])

    def _gather(self) -> None:
        if not self._new:
            return
        steps, losses, accuracies = zip(*self._new, strict=True)
        numbers = [torch.stack(values).double().cpu() for values in (losses, accuracies)]
        rows = torch.stack([torch.tensor(steps, dtype=torch.float64), *numbers], 1)
        self._rows, self._new = torch.cat([self._rows, rows]), []

    def state_dict(self) -> dict[str, Any]:
        """All steps so far."""
        self._gather()
        return {"rows": self._rows, "tokens": self.tokens}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on behind them."""
        self._rows, self.tokens = state_dict["rows"], state_dict["tokens"]
