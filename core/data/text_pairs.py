"""Texts in pairs: what is read and what is to be written, such as a sentence and its translation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from core.data.problems import Problems
from core.data.records import LABEL_NAMES, Records
from core.errors import InvalidData

PAIR_NAMES = (
    ("source", "target"),
    ("src", "tgt"),
    ("input", "output"),
    ("text", "summary"),
    ("document", "summary"),
    ("article", "summary"),
    ("dialogue", "summary"),
    ("article", "highlights"),
    ("question", "answer"),
    ("prompt", "completion"),
)
TRANSLATION = "translation"
_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,4})?")


class PairColumns(NamedTuple):
    """Where both texts stand: two columns, or two fields of the objects in column `inside`."""

    source: str
    target: str
    inside: str | None = None


class TextPair(NamedTuple):
    """Where it stands, what is read, what is to be written."""

    where: str
    source: str
    target: str


def choose_pair_columns(
    records: Records, *, source: str | None = None, target: str | None = None
) -> PairColumns | None:
    """The two columns: as named, else by the usual names, else two named after languages; None where there are none."""
    languages = _languages(records.sample.get(TRANSLATION, ()))
    if source is not None and target is not None:
        return _named(records, source, target, languages)
    if len(languages) >= 2:
        return PairColumns(languages[0], languages[1], TRANSLATION)
    strings = {name.lower(): name for name in records.names if _holds_strings(records.sample[name])}
    if any(name.lower() in LABEL_NAMES and name.lower() != "target" for name in records.names):
        return None
    for first, second in PAIR_NAMES:
        if first in strings and second in strings:
            return PairColumns(strings[first], strings[second])
    if len(records.names) == len(strings) == 2 and all(_LANGUAGE.fullmatch(name) for name in records.names):
        return PairColumns(*records.names)
    return None


def _named(records: Records, source: str, target: str, languages: Sequence[str]) -> PairColumns:
    if source in records.names and target in records.names:
        return PairColumns(source, target)
    if source in languages and target in languages:
        return PairColumns(source, target, TRANSLATION)
    missing = source if source not in (*records.names, *languages) else target
    there = ", ".join(map(repr, [*records.names[:20], *languages]))
    raise InvalidData(f"there is no column {missing!r}; there are {there}")


def _languages(values: Sequence[object]) -> list[str]:
    """The fields of the objects in a column; a column of a Parquet file shows its type instead of values."""
    first: Any = next((value for value in values if value is not None), None)
    if isinstance(first, Mapping):
        return [str(name) for name in first]
    return list(getattr(first, "names", [])) if str(first).startswith("struct<") else []


def _holds_strings(values: Sequence[object]) -> bool:
    filled = [value for value in values if value is not None]
    return bool(filled) and sum(isinstance(value, str) for value in filled) * 2 > len(filled)


def pair_rows(records: Records, columns: PairColumns, problems: Problems) -> Iterator[TextPair]:
    """The pairs, told apart from rows that lack a text."""
    source, target, inside = columns
    names = [source, target] if inside is None else [inside]
    for where, values in records.rows(names, problems):
        pair = values if inside is None else _fields(values[0], source, target)
        for name, text in zip((source, target), pair, strict=True):
            if not isinstance(text, str):
                problems.add(f"{where}, column {name!r}", "empty" if text is None else "not a string")
                break
            if not text.strip():
                problems.add(f"{where}, column {name!r}", "empty")
                break
        else:
            yield TextPair(where, str(pair[0]), str(pair[1]))


def _fields(value: object, source: str, target: str) -> Sequence[object]:
    return (value.get(source), value.get(target)) if isinstance(value, Mapping) else (None, None)
