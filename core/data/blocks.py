"""Blocks of float32 features and class numbers, whatever format the table came in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from core.data.labels import Classes, label_name
from core.data.problems import Problems
from core.data.records import Records, Roles, Unclean, number
from core.errors import InvalidData

_BLOCK_ROWS = 4096
Floats = npt.NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)
Row = tuple[str, Sequence[object]]  # where it stands, its values


class Block(NamedTuple):
    """Some rows of a table; `labels` are numbers that the table's Classes will set in order."""

    features: Floats
    labels: npt.NDArray[np.int64] | None


def record_blocks(records: Records, roles: Roles, classes: Classes) -> Iterator[Block]:
    """The table's rows, by the fast reader as far as it goes; raises InvalidData that tells by line what is wrong."""
    done = 0
    try:
        for features, labels in records.fast_blocks(roles.features, roles.label):
            if not np.isfinite(features).all():
                raise Unclean
            block = Block(features, None if labels is None else _codes(classes, labels))
            yield block
            done += len(features)
    except Unclean:
        for block in _careful_blocks(records, roles, classes, skip=done):
            yield block
            done += len(block.features)
    if not done:
        raise InvalidData("the table has no rows")


def _codes(classes: Classes, labels: Sequence[object]) -> npt.NDArray[np.int64]:
    try:
        return classes.add(labels)
    except ValueError as error:
        raise Unclean from error


def _careful_blocks(records: Records, roles: Roles, classes: Classes, *, skip: int) -> Iterator[Block]:
    """The rows after the first `skip`, value by value where a block is not sound."""
    problems = Problems()
    names = (*roles.features, roles.label) if roles.label else roles.features
    rows = islice(records.rows(names, problems), skip, None)
    width = len(roles.features)
    while chunk := list(islice(rows, _BLOCK_ROWS)):
        features = _matrix([values[:width] for _, values in chunk])
        if features is None:
            features = _cell_by_cell(chunk, roles.features, problems)
        labels = _labels(chunk, roles.label, classes, problems) if roles.label else None
        if not problems:
            yield Block(features, labels)
    problems.check()


def _matrix(values: list[Sequence[object]]) -> Floats | None:
    """The cells as numbers, or None where one of them may be none."""
    if any("_" in cell for row in values for cell in row if isinstance(cell, str)):
        return None  # NumPy reads 1_000 as Python does
    try:
        with np.errstate(over="ignore"):
            matrix = np.array(values, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        return None
    return matrix if matrix.ndim == 2 and np.isfinite(matrix).all() else None


def _cell_by_cell(chunk: Sequence[Row], names: Sequence[str], problems: Problems) -> Floats:
    matrix = np.zeros((len(chunk), len(names)), dtype=np.float32)
    for row, (where, values) in enumerate(chunk):
        for column, name in enumerate(names):
            try:
                matrix[row, column] = number(values[column])
            except ValueError as error:
                problems.add(f"{where}, column {name!r}", str(error))
    return matrix


def _labels(chunk: Sequence[Row], name: str, classes: Classes, problems: Problems) -> npt.NDArray[np.int64]:
    try:
        return classes.add(values[-1] for _, values in chunk)
    except ValueError:
        for where, values in chunk:
            try:
                label_name(values[-1])
            except ValueError as error:
                problems.add(f"{where}, column {name!r}", str(error))
        return np.zeros(len(chunk), dtype=np.int64)


def regroup(blocks: Iterable[npt.NDArray[Number]], rows: int) -> Iterator[npt.NDArray[Number]]:
    """The same rows in blocks of exactly so many, save the last."""
    held: list[npt.NDArray[Number]] = []
    count = 0
    for block in blocks:
        while count + len(block) >= rows:
            yield np.concatenate([*held, block[: rows - count]]) if held else block[:rows]
            block = block[rows - count :]
            held, count = [], 0
        if len(block):
            held.append(block)
            count += len(block)
    if held:
        yield np.concatenate(held)
