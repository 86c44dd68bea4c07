"""Parquet files, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from core.data.compression import DEFAULT_LIMITS, Limits, open_seekable
from core.data.problems import Problems
from core.data.records import SAMPLE_ROWS, Unclean
from core.errors import InvalidData

_NUMBER_ROWS = 8192
_OBJECT_ROWS = 256  # texts and images may be large


class ParquetFile:
    """The records of a Parquet file."""

    format = "parquet"

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self._path = path
        self._limits = limits
        with self._open() as file:
            metadata = file.metadata
            self.count: int = metadata.num_rows
            sizes = (metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
            limits.check(max(sum(sizes), self.count), path.stat().st_size)
            self.schema: pa.Schema = file.schema_arrow
            # pandas keeps an index that is no range as a column of this name
            self.names: tuple[str, ...] = tuple(
                name for name in self.schema.names if not name.startswith("__index_level_")
            )
            if len(set(self.names)) < len(self.names) or any("\0" in name for name in self.names):
                raise InvalidData("two columns have the same name, or a name holds a nul character")
            self.sample = self._read_sample(file)

    def _read_sample(self, file: pq.ParquetFile) -> dict[str, list[object]]:
        types = dict(zip(self.schema.names, self.schema.types, strict=True))
        plain = [name for name in self.names if not _is_nested(types[name])]
        batch = next(file.iter_batches(batch_size=SAMPLE_ROWS, columns=plain), None)
        values = {name: _values(batch.column(name), name, 0, Problems()) for name in plain} if batch else {}
        # a column of lists or the like shows as its type, which is neither a number nor words
        return {name: values.get(name, [types[name]] if _is_nested(types[name]) else []) for name in self.names}

    @property
    def image_column(self) -> str | None:
        """The column of image files, as bytes or in a struct with `bytes`, as Hugging Face's `datasets` writes them."""
        for name in ("image", "img"):
            if name in self.names and _is_bytes(self.schema.field(name).type):
                return name
        return None

    def rows(self, names: Sequence[str], problems: Problems) -> Iterator[tuple[str, Sequence[object]]]:
        """Each row's values of these columns, rows counted from 1."""
        number = 0
        for batch in self._batches(names, _OBJECT_ROWS):
            columns = [_values(batch.column(name), name, number, problems) for name in names]
            for values in zip(*columns, strict=True):
                number += 1
                yield f"row {number}", values

    def fast_blocks(
        self, features: Sequence[str], label: str | None
    ) -> Iterator[tuple[npt.NDArray[np.float32], Sequence[object] | None]]:
        """The same rows as numbers; what is missing becomes NaN."""
        names = [*features, label] if label else [*features]
        for batch in self._batches(names, _NUMBER_ROWS):
            block = np.empty((batch.num_rows, len(features)), dtype=np.float32)
            for index, name in enumerate(features):
                block[:, index] = _numbers(batch.column(name))
            yield block, _labels(batch.column(label)) if label else None

    def _batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        with self._open() as file:
            yield from file.iter_batches(batch_size=rows, columns=list(names), use_threads=False)

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        with open_seekable(self._path, self._limits) as stream:
            try:
                yield pq.ParquetFile(
                    stream,
                    thrift_string_size_limit=2**26,
                    thrift_container_size_limit=2**22,
                    page_checksum_verification=True,
                )
            except pa.ArrowMemoryError:
                raise MemoryError from None
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise InvalidData(f"the Parquet file is damaged or cut short: {error!s:.200}") from error


def _is_nested(kind: pa.DataType) -> bool:
    tests = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _values(column: pa.Array, name: str, start: int, problems: Problems) -> list[object]:
    """The column as Python's values; raises InvalidData for strings that are not UTF-8, which Arrow does not check."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        for row, value in enumerate(column, start + 1):
            try:
                value.as_py()
            except UnicodeDecodeError:
                problems.add(f"row {row}, column {name!r}", "not UTF-8")
        problems.check()
        raise


def _labels(column: pa.Array) -> list[object]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError as error:
        raise Unclean from error


def _numbers(column: pa.Array) -> npt.NDArray[Any]:
    try:
        return np.asarray(column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False))
    except pa.ArrowException as error:
        raise Unclean from error
