"""JSON Lines: an object a line, all with the same fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from core.data.compression import DEFAULT_LIMITS, Limits, open_data
from core.data.lines import read_lines
from core.data.problems import Problems
from core.data.records import SAMPLE_ROWS, Unclean
from core.errors import InvalidData

MAX_LEVELS = 64  # lists and objects in each other, so that whoever goes through them recursively is safe
_TOO_DEEP = f"JSON nested too deeply: {MAX_LEVELS} levels are read"


def refuse_constant(name: str) -> NoReturn:
    """For json's `parse_constant`: NaN and infinities are no JSON."""
    raise ValueError(f"{name} is not JSON; leave such rows out")


_decode_from = json.JSONDecoder(parse_constant=refuse_constant).raw_decode


def read_objects(
    path: Path, problems: Problems, limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each object stands, and the object; blank lines are skipped."""
    with open_data(path, limits) as stream:
        for line_number, line in read_lines(stream, problems):
            if not (stripped := line.strip()):
                continue
            try:
                value = parse_object(stripped)
            except ValueError as error:
                problems.add(f"line {line_number}", str(error))
            else:
                yield f"line {line_number}", value


def parse_object(line: str) -> dict[str, Any]:
    """One line's object; raises ValueError that says what is wrong with it."""
    try:
        value, end = _decode_from(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at character {error.colno}: {error.msg} (one object a line)") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if end < len(line):
        raise ValueError(f"not JSON at character {end + 1}: more follows the value (one object a line)")
    if not isinstance(value, dict):
        raise ValueError("not an object: write one {...} a line")
    if line.count("[") + line.count("{") > MAX_LEVELS and is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    if "\\u" in line:
        _check_escapes(value, line)
    return value


def is_too_deep(value: object) -> bool:
    """Whether there are more than MAX_LEVELS lists and objects in each other."""
    level = [value]
    for _ in range(MAX_LEVELS):
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    return any(isinstance(each, dict | list) for each in level)


def _check_escapes(value: object, line: str) -> None:
    if "\\u0000" in line:
        raise ValueError("holds a nul character (\\u0000)")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None


class JsonLinesFile:
    """The records of a JSON Lines file; its columns are the fields of its first line."""

    format = "jsonl"

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self._path = path
        self._limits = limits
        first = self._first_objects()
        if not first:
            raise InvalidData("the file holds no objects")
        self.names = tuple(first[0])
        self.sample = {name: [value.get(name) for value in first] for name in self.names}

    def _first_objects(self) -> list[dict[str, Any]]:
        """The first good lines; where there are none, what is wrong with the others."""
        problems = Problems()
        found: list[dict[str, Any]] = []
        for _, value in read_objects(self._path, problems, self._limits):
            found.append(value)
            if len(found) == SAMPLE_ROWS:
                return found
        if not found:
            problems.check()
        return found

    def rows(self, names: Sequence[str], problems: Problems) -> Iterator[tuple[str, Sequence[object]]]:
        """Each line's values of these fields."""
        for where, value in read_objects(self._path, problems, self._limits):
            try:
                yield where, [value[name] for name in names]
            except KeyError as error:
                problems.add(where, f"{error} is missing")

    def fast_blocks(
        self, features: Sequence[str], label: str | None
    ) -> Iterator[tuple[npt.NDArray[np.float32], Sequence[object] | None]]:
        """There is no faster way than `rows`."""
        raise Unclean
