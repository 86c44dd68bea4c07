"""Tables and images as one tensor, for methods that learn without classes; those that come along are kept beside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from core.data.images import read_images
from core.data.opening import open_source
from core.data.profile import Kind
from core.data.sources import TableSource
from core.data.tables import read_table
from core.errors import InvalidData
from core.training.batches import split


@dataclass(frozen=True)
class NumericExamples:
    """Examples in memory and the class of each, if known."""

    kind: Kind
    values: torch.Tensor  # float32 [n, columns], or uint8 [n, channels, height, width]
    labels: torch.Tensor | None  # [n] int64, an index into class_names
    class_names: tuple[str, ...]
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """One example's."""
        return tuple(self.values.shape[1:])

    def rows(self, rows: torch.Tensor) -> NumericExamples:
        """Only these rows, in this order."""
        return replace(self, values=self.values[rows], labels=None if self.labels is None else self.labels[rows])

    def with_classes_of(self, other: NumericExamples) -> NumericExamples:
        """The same with labels that are indices into the other's class names; without, where a class is not among."""
        if self.labels is None or not set(self.class_names) <= set(other.class_names):
            return replace(self, labels=None, class_names=other.class_names)
        numbers = torch.tensor([other.class_names.index(name) for name in self.class_names])
        return replace(self, labels=numbers[self.labels], class_names=other.class_names)


def read_numeric(
    path: Path,
    *,
    label: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
) -> NumericExamples:
    """The table or the images at `path`, whole; raises InvalidData for other kinds of data."""
    if isinstance(open_source(path, label=label), TableSource):
        table = read_table(path, label=label)
        return NumericExamples(Kind.TABLE, table.features, table.labels, table.class_names, table.columns)
    images = read_images(path, size=image_size, channels=channels)
    return NumericExamples(Kind.IMAGES, images.pixels, images.labels, images.class_names)


def read_split(
    dataset: Path,
    validation: Path | None = None,
    *,
    seed: int,
    fraction: float | None = None,
    label: str | None = None,
    image_size: int | None = None,
) -> tuple[NumericExamples, NumericExamples | None]:
    """What to learn from, in an order drawn from `seed`, and what to measure on: a file, a fraction, or nothing.

    Raises InvalidData where the file's examples are not like the data set's.
    """
    data = read_numeric(dataset, label=label, image_size=image_size)
    if fraction is not None:
        if len(data) < 2:
            raise InvalidData("one example cannot be split for validation", param="dataset")
        order, held_out = split(len(data), fraction=fraction, seed=seed)
        return data.rows(order), data.rows(held_out)
    shuffled = data.rows(torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)))
    if validation is None:
        return shuffled, None
    channels = data.shape[0] if data.kind is Kind.IMAGES else None
    other = read_numeric(validation, label=label, image_size=image_size, channels=channels)
    if other.kind is not data.kind or other.columns != data.columns or other.shape != data.shape:
        raise InvalidData(
            f"the validation file holds {_described(other)}, the data set {_described(data)}: they must be alike",
            param="validation",
        )
    return shuffled, other.with_classes_of(data)


def _described(data: NumericExamples) -> str:
    if data.kind is Kind.IMAGES:
        channels, height, width = data.shape
        return f"images of {width}x{height} pixels in {channels} channels"
    names = ", ".join(map(repr, data.columns[:8])) + (" ..." if len(data.columns) > 8 else "")
    return f"rows of {len(data.columns)} columns ({names})"
