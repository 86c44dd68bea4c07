"""A data set's rows in blocks of float32, read from disk in order and in flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.data.blocks import regroup
from core.data.images import stream_images
from core.data.opening import open_source
from core.data.profile import inspect
from core.data.sources import TableSource
from core.data.tables import table_blocks


class RowBlocks(Sequence[torch.Tensor]):
    """Blocks of `rows` rows, [rows, features], the last one shorter; asking for an earlier one reads from the start.

    `shape`: one example's where the rows are images, whose pixels lie in [0, 1].
    """

    def __init__(
        self,
        read: Callable[[], Iterator[npt.NDArray[Any]]],
        *,
        rows: int,
        examples: int,
        features: int,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self.read = read
        self.rows = rows
        self.examples = examples
        self.features = features
        self.shape = shape
        self._next = 0
        self._reader = read()

    def __len__(self) -> int:
        return -(-self.examples // self.rows)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(index)
        if index < self._next:
            self._reader, self._next = self.read(), 0
        block = next(islice(self._reader, index - self._next, None))
        self._next = index + 1
        rows = block.reshape(len(block), -1)
        return torch.from_numpy(rows if self.shape is None else rows.astype(np.float32) / 255)


def open_rows(path: Path, *, rows: int, image_size: int | None = None) -> RowBlocks:
    """The rows of a table without its labels, or of images; a first reading checks and counts them."""
    if isinstance(open_source(path), TableSource):
        profile = inspect(path)
        return RowBlocks(
            lambda: table_blocks(path, rows=rows),
            rows=rows,
            examples=profile.examples,
            features=prod(profile.shape or ()),
        )
    images = stream_images(path, size=image_size)
    return RowBlocks(
        lambda: regroup(images.blocks(), rows),
        rows=rows,
        examples=images.examples,
        features=prod(images.shape),
        shape=images.shape,
    )
