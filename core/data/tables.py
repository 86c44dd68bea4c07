"""Tables as tensors, whole or a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.data.blocks import Floats, regroup
from core.data.opening import open_source
from core.data.sources import TableSource, wrong_kind


@dataclass(frozen=True)
class Table:
    """Features and, where the table has a label column, the class of each row."""

    features: torch.Tensor  # [rows, columns] float32
    columns: tuple[str, ...]  # the features' names
    labels: torch.Tensor | None  # [rows] int64, an index into class_names
    class_names: tuple[str, ...]


def read_table(path: Path, *, label: str | None = None) -> Table:
    """The whole table in memory.

    The label is the column (or, in .npz and safetensors, the array) so named; else the one called label, labels, class,
    target or y; else the only column that holds words; else there is none. Raises InvalidData by line or row.
    """
    source = _open(path, label)
    blocks = list(source.blocks())
    features = torch.from_numpy(np.concatenate([block.features for block in blocks]))
    if not source.has_labels:
        return Table(features, source.features, None, ())
    codes = np.concatenate([block.labels for block in blocks if block.labels is not None])
    return Table(features, source.features, torch.from_numpy(source.classes.order()[codes]), source.classes.names)


def table_blocks(path: Path, *, rows: int = 8192, label: str | None = None) -> Iterator[Floats]:
    """The features in blocks of `rows` rows, the last one shorter, in flat memory: [rows, columns] float32."""
    source = _open(path, label)
    return regroup((block.features for block in source.blocks()), rows)


def _open(path: Path, label: str | None) -> TableSource:
    source = open_source(path, label=label)
    if not isinstance(source, TableSource):
        raise wrong_kind(source, "a table")
    return source
