"""Runs a grader on one answer: its reward, those of its parts, and what kept it from having one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from core.graders.formula import compute
from core.graders.grader import Grader, Multi, StringCheck, TextSimilarity
from core.graders.similarity import SIMILARITIES
from core.graders.templates import LONGEST, AbsentError, Place, fill_in, places, text_at

Failure = Literal["item", "sample", "formula"]


class Sample(Mapping[str, Any]):
    """What a model wrote, as templates name it; `output_json` is there only if it is JSON."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _names(self) -> dict[str, Any]:
        names: dict[str, Any] = {"output_text": self._text}
        with suppress(ValueError, RecursionError):
            names["output_json"] = json.loads(self._text)
        return names

    def __getitem__(self, name: str) -> Any:
        return self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Grade:
    """An answer's reward; where it could not be graded it is 0, and `failure` and `error` say why."""

    reward: float
    parts: Mapping[str, float]
    failure: Failure | None = None
    error: str | None = None


def grade(grader: Grader, item: Mapping[str, Any], text: str) -> Grade:
    """What `text` is worth as an answer to `item`, a line of the data set; never raises."""
    values = {"item": item, "sample": Sample(text)}
    parts: dict[str, float] = {}
    try:
        if not isinstance(grader, Multi):
            return Grade(_reward(grader, values), parts)
        for name, part in grader.by_name.items():
            parts[name] = _reward(part, values)
        return Grade(compute(grader.calculate_output, parts), parts)
    except AbsentError as error:
        return Grade(0.0, parts, "item" if error.space == "item" else "sample", str(error))
    except ValueError as error:
        return Grade(0.0, parts, "formula", str(error))


def check_item(grader: Grader, item: Mapping[str, Any]) -> None:
    """Raise ValueError if the grader names what this line of a data set does not have, or has too much of."""
    for place in _places(grader):
        if place.space == "item":
            try:
                length = len(text_at(place, {"item": item}))
            except AbsentError:
                there = ", ".join(name for name in item if name != "messages") or "nothing beside messages"
                raise ValueError(f"the grader names '{place}', which is not there; there is: {there:.200}") from None
            if length > LONGEST:
                raise ValueError(f"'{place}' has {length:,} characters, and a grader takes {LONGEST:,}")


def names_of_items(grader: Grader) -> set[str]:
    """The fields that every line of a data set must have for this grader."""
    return {str(place.path[0]) for place in _places(grader) if place.space == "item"}


def _places(grader: Grader) -> Iterator[Place]:
    for each in grader.by_name.values() if isinstance(grader, Multi) else (grader,):
        yield from places(each.input)
        yield from places(each.reference)


def _reward(grader: StringCheck | TextSimilarity, values: Mapping[str, Any]) -> float:
    text, reference = fill_in(grader.input, values), fill_in(grader.reference, values)
    if isinstance(grader, TextSimilarity):
        found = SIMILARITIES[grader.evaluation_metric](text, reference)
        assert math.isfinite(found)  # noqa: S101 - all of them are between 0 and 1
        return found
    match grader.operation:
        case "eq":
            return float(text == reference)
        case "ne":
            return float(text != reference)
        case "like":
            return float(reference in text)
        case "ilike":
            return float(reference.casefold() in text.casefold())
