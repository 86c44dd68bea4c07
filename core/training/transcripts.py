"""How far what was heard is from what was said: word and character error rates."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def error_rates(said: Sequence[str], heard: Sequence[str]) -> dict[str, float]:
    """`wer` and `cer`: words, or characters, put in, left out or changed, for each that was said.

    Case and punctuation, which are not spoken, do not count.
    """
    pairs = [(spoken(truth), spoken(found)) for truth, found in zip(said, heard, strict=True)]
    words = [(truth.split(), found.split()) for truth, found in pairs]
    return {"wer": _rate(words), "cer": _rate(pairs)}


def spoken(text: str) -> str:
    """The text in lower case, without punctuation, with single spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join(re.sub(r"[^\w\s']|_", " ", plain).split())


def _rate(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> float:
    wrong = sum(edits(truth, found) for truth, found in pairs)
    return wrong / max(1, sum(len(truth) for truth, _ in pairs))


def edits(first: Sequence[str], second: Sequence[str]) -> int:
    """How many items have to be put in, left out or changed to make one sequence of the other (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for place, item in enumerate(first, start=1):
        corner, row[0] = row[0], place
        for column, other in enumerate(second, start=1):
            corner, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, corner + (item != other))
    return row[-1]
