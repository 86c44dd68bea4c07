"""Texts with `{{ item.reference_answer }}` or `{{ sample.output_text }}` in them: names are looked up, nothing runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, StringConstraints

_HOLE = re.compile(r"\{\{([^{}]*)\}\}")  # no braces within: else what never closes is searched from each opening
_PATH = re.compile(r"(item|sample)((?:\.[A-Za-z_][A-Za-z0-9_-]*|\[\d{1,6}\])+)")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+)\]")
SAMPLE_NAMES = ("output_text", "output_json")
LONGEST = 100_000  # characters, also once filled in: what takes the square of its length is done within a second


class Place(NamedTuple):
    """A value that a template names: of the data set's line (`item`) or of the model's answer (`sample`)."""

    space: str
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        return self.space + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)


class AbsentError(ValueError):
    """A value that a template names is not there; `space` tells whether the item or the sample lacks it."""

    def __init__(self, space: str, message: str) -> None:
        super().__init__(message)
        self.space = space


@lru_cache(maxsize=1024)
def pieces(template: str) -> Sequence[str | Place]:
    """The template's texts and places in order; raises ValueError for what cannot be one."""
    found: list[str | Place] = []
    end = 0
    for hole in _HOLE.finditer(template):
        found += [_plain(template[end : hole.start()]), _place(hole[1].strip())]
        end = hole.end()
    return [*found, _plain(template[end:])]


def places(template: str) -> Iterator[Place]:
    """What the template names."""
    return (piece for piece in pieces(template) if isinstance(piece, Place))


def fill_in(template: str, values: Mapping[str, Any]) -> str:
    """The template with its places filled; `values`: the item and the sample. Raises AbsentError for what they lack.

    A text is put in as it is, any other value as JSON. Raises ValueError for what would be longer than LONGEST.
    """
    found: list[str] = []
    length = 0
    for piece in pieces(template):
        found.append(piece if isinstance(piece, str) else text_at(piece, values))
        length += len(found[-1])
        if length > LONGEST:
            raise ValueError(f"'{template[:60]}' has more than {LONGEST:,} characters with its places filled")
    return "".join(found)


def text_at(place: Place, values: Mapping[str, Any]) -> str:
    """The value at a place, as text; raises AbsentError."""
    value = values[place.space]
    for step in place.path:
        is_there = step in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(step, int)
        if not is_there or (isinstance(value, list) and isinstance(step, int) and step >= len(value)):
            raise AbsentError(place.space, f"'{place}' is not there")
        value = value[step]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> str:
    if "{{" in text or "}}" in text:
        raise ValueError("'{{' and '}}' do not match: write {{ item.name }} or {{ sample.output_text }}")
    return text


def _place(written: str) -> Place:
    if not (found := _PATH.fullmatch(written)):
        raise ValueError(
            f"'{{{{ {written[:60]} }}}}' names nothing: it is {{{{ item.name }}}} or {{{{ sample.output_text }}}}, and "
            "names within are reached with a dot or with [0]"
        )
    path = tuple(name or int(number) for name, number in _STEP.findall(found[2]))
    if found[1] == "sample" and path[0] not in SAMPLE_NAMES:
        raise ValueError(f"'sample.{path[0]}' is not known here: a sample has {' and '.join(SAMPLE_NAMES)}")
    if found[1] == "sample" and path[0] == "output_text" and len(path) > 1:
        raise ValueError(f"'{written[:60]}' names nothing: output_text is a text; take sample.output_json")
    return Place(found[1], path)


def _checked(template: str) -> str:
    pieces(template)
    return template


Template = Annotated[str, StringConstraints(max_length=LONGEST), AfterValidator(_checked)]
