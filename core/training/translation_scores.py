"""How near written texts come to the wanted ones: chrF and BLEU, both in percent."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

CHARACTERS = 6  # the longest n-grams of chrF
WORDS = 4  # and of BLEU
RECALL_WEIGHT = 2


def chrf(written: Sequence[str], wanted: Sequence[str]) -> float:
    """Character n-gram F-score over all texts together (Popovic 2015), white space left out, recall weighing twice.

    The mean over the orders that occur, as sacreBLEU has it since 2.0.
    """
    scores = []
    for order in range(1, CHARACTERS + 1):
        right = given = asked = 0
        for text, reference in zip(written, wanted, strict=True):
            here, there = _grams("".join(text.split()), order), _grams("".join(reference.split()), order)
            right += (here & there).total()
            given += here.total()
            asked += there.total()
        if given and asked:
            precision, recall = right / given, right / asked
            scores.append(_f_score(precision, recall, RECALL_WEIGHT))
    return 100 * sum(scores) / len(scores) if scores else 0.0


def bleu(written: Sequence[str], wanted: Sequence[str]) -> float:
    """Geometric mean of the precisions of 1- to 4-grams, with brevity penalty, over all texts together (Papineni et
    al. 2002). Words are runs of letters and digits, and single other signs; an order without any match counts as half
    a match of the last (as in NIST's mteval-v13a).
    """
    pairs = [(_words(text), _words(reference)) for text, reference in zip(written, wanted, strict=True)]
    length, reference_length = sum(len(text) for text, _ in pairs), sum(len(reference) for _, reference in pairs)
    logs, smoothing = [], 1.0
    for order in range(1, WORDS + 1):
        right = sum((_grams(text, order) & _grams(reference, order)).total() for text, reference in pairs)
        given = sum(max(0, len(text) - order + 1) for text, _ in pairs)
        if not given:
            break
        if not right:
            smoothing /= 2
        logs.append(math.log((right or smoothing) / given))
    if not logs or not reference_length:
        return 0.0
    brevity = min(0.0, 1 - reference_length / max(1, length))
    return 100 * math.exp(sum(logs) / len(logs) + brevity)


def _grams(items: Sequence[Hashable], order: int) -> Counter[Hashable]:
    return Counter(_windows(items, order))


def _windows(items: Sequence[Hashable], order: int) -> Iterator[Hashable]:
    for start in range(len(items) - order + 1):
        window = items[start : start + order]
        yield window if isinstance(window, str) else tuple(window)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def _f_score(precision: float, recall: float, weight: float) -> float:
    bottom = weight**2 * precision + recall
    return (1 + weight**2) * precision * recall / bottom if bottom else 0.0
