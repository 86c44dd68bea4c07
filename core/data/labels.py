"""Labels as words or whole numbers, and the classes they make."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from core.data.natural_order import natural
from core.errors import InvalidData

MAX_CLASSES = 100_000
MAX_NAME = 200


def label_name(value: object) -> str:
    """A label as its class is called; raises ValueError for what is neither a word nor a whole number."""
    if isinstance(value, str):
        return _name_of_text(value.strip())
    if isinstance(value, bool | int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    raise ValueError(_refusal(value))


def _name_of_text(text: str) -> str:
    if not text:
        raise ValueError("empty")
    if "\0" in text:
        raise ValueError("holds a nul character")
    if len(text) > MAX_NAME:
        raise ValueError(f"a label of {len(text)} characters; a label is a word")
    if re.fullmatch(r"[+-]?\d+\.0*", text):
        return text.partition(".")[0]
    if re.fullmatch(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", text) or text.lower() == "nan":
        raise ValueError(_refusal(text))
    return text


def _refusal(value: object) -> str:
    if value is None:
        return "empty"
    return (
        f"{value!r:.60} cannot be a label, which is a word or a whole number: a column of quantities needs another name"
    )


class Classes:
    """Takes labels as they come and numbers their classes, in natural order once all are known."""

    def __init__(self) -> None:
        self._codes: dict[object, int] = {}  # every spelling of a label
        self._names: dict[str, int] = {}
        self._counts: list[int] = []

    def add(self, values: Iterable[object]) -> npt.NDArray[np.int64]:
        """Provisional numbers of these labels, for `order` to set right; raises ValueError as `label_name` does."""
        codes = [self._code(value) for value in values]
        for code in codes:
            self._counts[code] += 1
        return np.array(codes, dtype=np.int64)

    def add_one(self, value: object) -> int:
        """The same for a single label."""
        code = self._code(value)
        self._counts[code] += 1
        return code

    def _code(self, value: object) -> int:
        try:
            known = self._codes.get(value)
        except TypeError:  # a list or the like, which no dictionary takes
            raise ValueError("a label is a word or a whole number") from None
        return self._learn(value) if known is None else known

    def _learn(self, value: object) -> int:
        code = self._names.setdefault(label_name(value), len(self._names))
        if code == len(self._counts):
            self._counts.append(0)
        if len(self._names) > MAX_CLASSES:
            raise InvalidData(f"there are over {MAX_CLASSES:,} different labels: is this column a label?")
        if len(self._codes) < 2 * MAX_CLASSES:
            self._codes[value] = code
        return code

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in natural order; a label's number is its class's place here."""
        return tuple(sorted(self._names, key=natural))

    @property
    def counts(self) -> dict[str, int]:
        """How many labels each class has, in the order of `names`."""
        return {name: self._counts[self._names[name]] for name in self.names}

    def order(self) -> npt.NDArray[np.int64]:
        """The final number of each provisional one."""
        order = np.empty(len(self._names), dtype=np.int64)
        for number, name in enumerate(self.names):
            order[self._names[name]] = number
        return order
