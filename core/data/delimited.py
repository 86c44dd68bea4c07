"""CSV, TSV and their kin: the delimiter and the header are found from the content."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as arrow_csv

from core.data.compression import DEFAULT_LIMITS, Limits, open_data, read_head
from core.data.lines import MAX_LINE_BYTES, read_lines
from core.data.problems import Problems
from core.data.records import LABEL_NAMES, SAMPLE_ROWS, TEXT_NAMES, Unclean, number

csv.field_size_limit(MAX_LINE_BYTES)
_BLOCK_BYTES = 2**20  # Arrow reads some 32 of them ahead


@dataclass(frozen=True)
class Dialect:
    """How the fields of a line are told apart."""

    delimiter: str
    has_quotes: bool
    has_header: bool
    width: int

    @property
    def quoting(self) -> Literal[0, 3]:
        """The same for Python's csv module."""
        return csv.QUOTE_MINIMAL if self.has_quotes else csv.QUOTE_NONE


def sniff(head: bytes, *, is_whole: bool) -> Dialect | None:
    """How these first bytes are delimited, or None where they are no table but text."""
    lines = head.decode(errors="replace").removeprefix("\ufeff").splitlines(keepends=True)
    lines = [line for line in lines[: None if is_whole else -1] if line.strip()][:SAMPLE_ROWS]
    found = [dialect for delimiter in "\t,;|" if (dialect := _try(lines, delimiter))]
    if found:
        return max(found, key=lambda each: (each[0], each[1].width))[1]
    return _all_numbers(lines, " ") or _all_numbers(lines, ",")


def _try(lines: Sequence[str], delimiter: str) -> tuple[float, Dialect] | None:
    """The share of lines that agree on this delimiter, if they do so well enough."""
    has_quotes = delimiter != "\t" or _has_quotes(lines)
    records = _split(lines, delimiter, has_quotes)
    widths = Counter(map(len, records))
    if not records or (width := widths.most_common(1)[0][0]) < 2:
        return None
    has_header = _has_header(records)
    share = widths[width] / len(records)
    is_known = has_header and {name.strip().lower() for name in records[0]} & {*LABEL_NAMES, *TEXT_NAMES}
    cells = [cell for record in records[has_header:] for cell in record]
    are_numbers = sum(map(_is_number, cells)) * 2 > len(cells)
    if not is_known and (share < (0.5 if are_numbers else 0.8) or (not are_numbers and _is_prose(lines, delimiter))):
        return None
    return share, Dialect(delimiter, has_quotes, has_header, len(records[0]) if has_header else width)


def _all_numbers(lines: Sequence[str], delimiter: str) -> Dialect | None:
    """A table of nothing but numbers between single spaces, or in one column."""
    records = [line.strip().split(delimiter) for line in lines]
    has_header = len(records) > 1 and not any(map(_is_number, records[0]))
    rows = records[has_header:]
    if not rows or len({len(record) for record in records}) > 1 or (delimiter == " " and len(rows[0]) < 2):
        return None
    if not all(_is_number(cell) for record in rows for cell in record):
        return None
    return Dialect(delimiter, has_quotes=False, has_header=has_header, width=len(rows[0]))


def _split(lines: Sequence[str], delimiter: str, has_quotes: bool) -> list[list[str]]:
    dialect = Dialect(delimiter, has_quotes, has_header=False, width=0)
    try:
        return [record for record in csv.reader(lines, delimiter=delimiter, quoting=dialect.quoting) if record]
    except csv.Error:
        return []


def _has_quotes(lines: Sequence[str]) -> bool:
    """Whether fields are quoted: some are, and none has a quote at its beginning only."""
    fields = [field for line in lines for field in line.rstrip("\r\n").split("\t") if field.startswith('"')]
    return bool(fields) and all(len(field) > 1 and field.endswith('"') for field in fields)


def _is_number(cell: str) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return True


def _has_header(records: Sequence[Sequence[str]]) -> bool:
    """Whether the first line names the columns: words over numbers, or else short and different names."""
    first, rest = records[0], [record for record in records[1:] if len(record) == len(records[0])]
    if len(set(first)) < len(first) and any(map(_is_number, first)):
        return False
    numeric = [
        index for index in range(len(first)) if rest and sum(_is_number(row[index]) for row in rest) * 2 > len(rest)
    ]
    if numeric:
        return sum(not _is_number(first[index]) for index in numeric) * 2 > len(numeric)
    names = [cell.strip() for cell in first]
    are_names = all(re.fullmatch(r"[^\W\d][\w .()%/-]{0,63}", name) and len(name.split()) <= 3 for name in names)
    seen_again = any(cell in {row[index] for row in rest} for index, cell in enumerate(first))
    return are_names and len(set(names)) == len(names) and not seen_again


def _is_prose(lines: Sequence[str], delimiter: str) -> bool:
    """Whether spaces follow the delimiter, as in sentences."""
    text = "".join(lines)
    return text.count(delimiter + " ") * 5 > text.count(delimiter) * 4


class DelimitedFile:
    """The records of a CSV or TSV file."""

    def __init__(self, path: Path, dialect: Dialect, limits: Limits = DEFAULT_LIMITS) -> None:
        self.format = "tsv" if dialect.delimiter == "\t" else "csv"
        self._path = path
        self._dialect = dialect
        self._limits = limits
        self.names = self._read_names()
        self.sample = self._read_sample()

    def _read_names(self) -> tuple[str, ...]:
        if not self._dialect.has_header:
            return tuple(f"column_{index + 1}" for index in range(self._dialect.width))
        problems = Problems()
        _, record = next(self._records(problems), ("", []))
        problems.check()
        names = tuple(name.strip() for name in record)
        seen: set[str] = set()
        for index, name in enumerate(names):
            if not name:
                problems.add("line 1", f"column {index + 1} has no name (pandas: to_csv(..., index=False))")
            elif name in seen:
                problems.add("line 1", f"two columns are called {name!r}")
            seen.add(name)
        problems.check()
        return names

    def _read_sample(self) -> dict[str, list[object]]:
        head = read_head(self._path, self._limits).decode(errors="replace").splitlines(keepends=True)
        records = _split(head[:SAMPLE_ROWS], self._dialect.delimiter, self._dialect.has_quotes)
        rows = [record for record in records[self._dialect.has_header :] if len(record) == len(self.names)]
        return {name: [row[index] for row in rows] for index, name in enumerate(self.names)}

    def rows(self, names: Sequence[str], problems: Problems) -> Iterator[tuple[str, Sequence[object]]]:
        """Each line's values of these columns."""
        place_of = {name: place for place, name in enumerate(self.names)}
        places = [place_of[name] for name in names]
        width = len(self.names)
        reference = "the header has" if self._dialect.has_header else "the first line has"
        records = self._records(problems)
        if self._dialect.has_header:
            next(records, None)
        for where, record in records:
            if len(record) == width:
                yield where, [record[place] for place in places]
            else:
                problems.add(where, f"{len(record)} fields, {reference} {width}")

    def _records(self, problems: Problems) -> Iterator[tuple[str, list[str]]]:
        last = 0

        def lines() -> Iterator[str]:
            nonlocal last
            for last, line in read_lines(stream, problems):  # noqa: B007  `last` is read outside
                yield line + "\n"

        with open_data(self._path, self._limits) as stream:
            dialect = self._dialect
            reader = csv.reader(lines(), delimiter=dialect.delimiter, quoting=dialect.quoting, strict=True)
            while True:
                start = last + 1
                try:
                    record = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    problems.add(f"line {start}", _explained(error))
                else:
                    if record:
                        yield f"line {start}", record

    def fast_blocks(
        self, features: Sequence[str], label: str | None
    ) -> Iterator[tuple[npt.NDArray[np.float32], Sequence[object] | None]]:
        """The same by Arrow, which stops at the first cell that is no number."""
        with open_data(self._path, self._limits) as stream:
            try:
                for batch in self._arrow_batches(pa.PythonFile(stream, mode="r"), features, label):
                    block = np.empty((batch.num_rows, len(features)), dtype=np.float32)
                    for index in range(len(features)):
                        block[:, index] = batch.column(index).to_numpy(zero_copy_only=False)
                    yield block, batch.column(len(features)).to_pylist() if label else None
            except pa.ArrowInvalid as error:
                raise Unclean from error

    def _arrow_batches(
        self, stream: pa.NativeFile, features: Sequence[str], label: str | None
    ) -> Iterator[pa.RecordBatch]:
        dialect = self._dialect
        types = dict.fromkeys(features, pa.float32()) | ({label: pa.string()} if label else {})
        yield from arrow_csv.open_csv(
            stream,
            arrow_csv.ReadOptions(
                use_threads=False,
                block_size=_BLOCK_BYTES,
                column_names=self.names,
                skip_rows=int(dialect.has_header),
            ),
            arrow_csv.ParseOptions(delimiter=dialect.delimiter, quote_char='"' if dialect.has_quotes else False),
            arrow_csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[]),
        )


def _explained(error: csv.Error) -> str:
    if "unexpected end" in str(error) or "field larger" in str(error):
        return "a quote that opens here is never closed"
    return f'{error}: quote fields with ", and write a quote within as ""'
