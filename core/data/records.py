"""What delimited files, JSON Lines and Parquet have in common: named columns, and rows of values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.data.problems import Problems, shown
from core.errors import InvalidData

LABEL_NAMES = ("label", "labels", "class", "target", "y")
TEXT_NAMES = ("text", "document", "content", "sentence", "review")
SAMPLE_ROWS = 200
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_FREE_TEXT_WORDS = 3  # a column with as many words a value, on average, is text rather than a category


class Unclean(Exception):  # noqa: N818  not an error: the careful reader takes over and says what is wrong
    """The fast reader met something it cannot take as numbers."""


class Records(Protocol):
    """A file of rows; `fast_blocks` raises Unclean where `rows`, slower, can tell what is wrong."""

    @property
    def format(self) -> str:
        """The format's name, as a profile gives it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""

    @property
    def sample(self) -> Mapping[str, Sequence[object]]:
        """Values of the first rows, to tell numbers from words."""

    def rows(self, names: Sequence[str], problems: Problems) -> Iterator[tuple[str, Sequence[object]]]:
        """Where each row stands, and its values of these columns."""

    def fast_blocks(
        self, features: Sequence[str], label: str | None
    ) -> Iterator[tuple[npt.NDArray[np.float32], Sequence[object] | None]]:
        """The same rows as blocks of numbers, and their labels."""


@dataclass(frozen=True)
class Roles:
    """What each column is for: a table has features, a text set has a text column; either may have a label."""

    features: tuple[str, ...] = ()
    text: str | None = None
    label: str | None = None


def number(value: object) -> float:
    """A cell as a finite 32-bit number; raises ValueError that says what is wrong with it."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("empty")
    if not isinstance(value, str | bool | int | float | Decimal | np.number) or (
        isinstance(value, str) and "_" in value
    ):
        raise ValueError(f"{shown(value)} is not a number")
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is not a number") from None
    if not math.isfinite(result):
        raise ValueError(f"{shown(value)} is not a finite number")
    if abs(result) > _MAX_FLOAT32:
        raise ValueError(f"{shown(value)} is too large for a 32-bit number")
    return result


def choose_roles(records: Records, *, text: str | None = None, label: str | None = None) -> Roles:
    """What the columns are for: as named, else by the usual names, else by what the first rows hold."""
    for name in (text, label):
        if name is not None and name not in records.names:
            raise InvalidData(f"there is no column {name!r}; there are {_listed(records.names)}")
    label = label or next((name for usual in LABEL_NAMES for name in records.names if name.lower() == usual), None)
    if text is not None:
        return Roles(text=text, label=label)
    others = tuple(name for name in records.names if name != label)
    words = [name for name in others if not _holds_numbers(records.sample[name])]
    text = _text_column(records, words, len(others))
    if text is not None:
        return Roles(text=text, label=label)
    if label is None and len(words) == 1 and _holds_strings(records.sample[words[0]]):
        return Roles(features=tuple(name for name in others if name != words[0]), label=words[0])
    _refuse_words(records, words)
    if not others:
        raise InvalidData(f"there is only the label {label!r} and nothing to learn from")
    return Roles(features=others, label=label)


def _holds_numbers(values: Sequence[object]) -> bool:
    """Whether most values are numbers; the others are then told as mistakes."""
    filled = [value for value in values if value is not None and value != ""]
    return sum(map(_is_number, filled)) * 2 > len(filled) or not filled


def _is_number(value: object) -> bool:
    try:
        number(value)
    except ValueError as error:
        return "finite" in str(error) or "too large" in str(error)
    return True


def _holds_strings(values: Sequence[object]) -> bool:
    """Whether most values are strings; the others are then told as mistakes."""
    filled = [value for value in values if value is not None]
    return sum(isinstance(value, str) for value in filled) * 2 >= len(filled)


def _text_column(records: Records, words: Sequence[str], columns: int) -> str | None:
    """The column that holds the documents, if any: one of the usual names, or the only free text."""
    strings = [name for name in words if _holds_strings(records.sample[name])]
    for usual in TEXT_NAMES:
        for name in strings:
            if name.lower() == usual:
                return name
    free = [name for name in strings if columns == 1 or _is_free_text(records.sample[name])]
    return free[0] if len(free) == 1 else None


def _is_free_text(values: Sequence[object]) -> bool:
    lengths = [len(value.split()) for value in values if isinstance(value, str)]
    return sum(lengths) >= _FREE_TEXT_WORDS * max(1, len(lengths))


def _refuse_words(records: Records, words: Sequence[str]) -> None:
    problems = Problems()
    for name in words:
        value = next((value for value in records.sample[name] if value is not None and value != ""), None)
        cure = "encode it as numbers, or call it 'label' if it is the class, or 'text' if it holds documents"
        problems.add(f"column {name!r}", f"holds {shown(value)} and not numbers: {cure}")
    problems.check()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (" ..." if len(names) > 20 else "")
