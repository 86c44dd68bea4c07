"""The training examples that a classifier learned worst: most wrong labels are among them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core.training.image_grid import write_grid

LISTED = 100
PICTURED = 40
QUOTED = 200  # characters of a text


class ExampleLosses:
    """The loss of each training example, summed over all epochs; track it in the run.

    The mean over the epochs tells wrong labels from right ones better than the last loss, by when a large network knows
    the wrong ones by heart (Swayamdipta et al. 2020, Dataset cartography).
    """

    def __init__(self, examples: int, device: torch.device) -> None:
        self.sums = torch.zeros(examples, device=device)
        self.counts = torch.zeros(examples, device=device)

    def note(self, rows: torch.Tensor, losses: torch.Tensor) -> None:
        """Add the losses [rows] of a step's examples."""
        self.sums.index_add_(0, rows, losses.detach().float())
        self.counts.index_add_(0, rows, torch.ones_like(losses, dtype=torch.float32))

    def hardest(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The examples of the highest mean losses, and these, the highest first; only those that were learned from."""
        means = torch.where(self.counts > 0, self.sums / self.counts.clamp(min=1), -torch.inf).cpu()
        values, rows = means.topk(min(count, int((self.counts > 0).sum())))
        return rows, values

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What was summed so far."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Go on from there."""
        self.sums.copy_(state_dict["sums"])
        self.counts.copy_(state_dict["counts"])


class Hardest(NamedTuple):
    """Some examples, the highest mean loss first."""

    rows: torch.Tensor  # [n] int64, into the training examples
    losses: torch.Tensor  # [n]
    labels: Sequence[str]
    predicted: Sequence[str]  # what the trained network says
    probabilities: Sequence[float]  # that it gives to the label


def write_hardest(found: Hardest, places: torch.Tensor, examples: Any, folder: Path) -> None:
    """Write `hardest_examples.csv` and, of images, a picture of the first ones.

    `places` [training examples]: the number of each in the data set as it was sent. `examples`: as they were read.
    """
    texts = examples if not isinstance(examples, torch.Tensor) and isinstance(examples[0], str) else None
    with (folder / "hardest_examples.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["example", "loss", "label", "predicted", "probability_of_label", *(["text"] if texts else [])])
        columns = zip(found.rows.tolist(), found.losses.tolist(), *found[2:], strict=True)
        for row, loss, label, predicted, probability in columns:
            quoted = [" ".join(texts[row].split())[:QUOTED]] if texts else []
            writer.writerow([int(places[row]) + 1, f"{loss:.6g}", label, predicted, f"{probability:.6g}", *quoted])
    if isinstance(examples, torch.Tensor) and examples.dim() == 4 and examples.shape[1] in (1, 3):
        images = examples[found.rows[:PICTURED]].float() / 255
        write_grid(images, folder / "hardest_examples.png", columns=min(10, len(images)))
