"""Examples that are learned from without their classes: read, standardised and split."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from core.data.images import read_images
from core.data.opening import open_source
from core.data.sources import TableSource
from core.data.tables import read_table
from core.errors import InvalidData
from core.spec import TrainingSpec
from core.training.batches import split
from core.training.run import Run


class Unlabelled(NamedTuple):
    """What is learned from, what is validated on, and what the standardising of a table took off."""

    training: torch.Tensor  # [examples, *shape]; images as uint8 pixels, tables as standardised float32
    validation: torch.Tensor | None
    mean: torch.Tensor | None  # [features], of tables
    std: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example: (features,), or (channels, height, width)."""
        return tuple(self.training.shape[1:])

    @property
    def is_images(self) -> bool:
        """Whether the examples are pixels."""
        return self.training.dtype == torch.uint8

    @property
    def held_out(self) -> torch.Tensor:
        """What to look at: the validation examples, or those of the data set where there are none."""
        return self.training if self.validation is None else self.validation


def read_unlabelled(spec: TrainingSpec, run: Run, *, image_size: int | None) -> Unlabelled:
    """The data set, a table or images, and what to validate on: a file or a fraction of it. Raises InvalidData."""
    training = _read_examples(run.dataset, image_size)
    validation = _read_examples(run.inputs["validation"], image_size) if spec.validation is not None else None
    if validation is not None and validation.shape[1:] != training.shape[1:]:
        raise InvalidData(
            f"validation examples have the shape {list(validation.shape[1:])}, those of the data set "
            f"{list(training.shape[1:])}: they must be alike",
            param="validation",
        )
    if spec.validation_fraction is not None:
        rows, held_out = split(len(training), fraction=spec.validation_fraction, seed=spec.seed)
        training, validation = training[rows], training[held_out]
    if training.dtype == torch.uint8:
        return Unlabelled(training, validation, None, None)
    std, mean = torch.std_mean(training.double(), dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    scaled = [None if part is None else ((part - mean) / std).float() for part in (training, validation)]
    return Unlabelled(scaled[0], scaled[1], mean, std)  # type: ignore[arg-type]  # the first is never None


def _read_examples(path: Path, image_size: int | None) -> torch.Tensor:
    """Pixels [count, channels, height, width] uint8, or a table's features [count, features] float32."""
    if isinstance(open_source(path), TableSource):
        return read_table(path).features
    return read_images(path, size=image_size).pixels


def as_inputs(examples: torch.Tensor) -> torch.Tensor:
    """What a network takes: pixels in [0, 1], or standardised features."""
    return examples.float() / 255 if examples.dtype == torch.uint8 else examples
