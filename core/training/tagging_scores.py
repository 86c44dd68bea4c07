"""How well sentences were tagged: entities found whole, from BIO, BIOES or BILOU tags."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

_TAG = re.compile(r"([BIESLU])-(.+)")
_BEGINS, _ENDS = "BSU", "ESLU"


class Entity(NamedTuple):
    """Tokens `start` to `end` (exclusive) of a sentence, together one thing of a kind."""

    kind: str
    start: int
    end: int


class EntityScores(NamedTuple):
    """Over all sentences together, as conlleval and seqeval count."""

    precision: float
    recall: float
    f1: float


def marks_entities(class_names: Collection[str]) -> bool:
    """Whether these tags are O and positions in entities (B-PER, I-PER)."""
    return any(name != "O" for name in class_names) and all(name == "O" or _TAG.fullmatch(name) for name in class_names)


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence; one that begins without its B counts, as in conlleval (Tjong Kim Sang 2000)."""
    found: list[Entity] = []
    kind, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        match = _TAG.fullmatch(tag)
        position, new = (match[1], match[2]) if match else ("O", "")
        if kind and (position == "O" or position in _BEGINS or new != kind):
            found.append(Entity(kind, start, place))
            kind = ""
        if position != "O" and not kind:
            kind, start = new, place
        if kind and position in _ENDS:
            found.append(Entity(kind, start, place + 1))
            kind = ""
    return found


def entity_scores(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> EntityScores:
    """Of whole entities: right are those of the same kind at the same place. Without any in either, all are 0."""
    right = wanted = named = 0
    for true_tags, tags in zip(truth, predicted, strict=True):
        here, there = set(entities(true_tags)), set(entities(tags))
        right += len(here & there)
        wanted += len(here)
        named += len(there)
    precision, recall = right / max(1, named), right / max(1, wanted)
    return EntityScores(precision, recall, 2 * right / max(1, wanted + named))
