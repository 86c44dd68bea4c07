"""How alike two texts are, from 0 to 1: fuzzy match by RapidFuzz, and overlaps of n-grams of words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from rapidfuzz import fuzz, utils
from rapidfuzz.distance import LCSseq

Similarity = Callable[[str, str], float]
LONGEST_GRAM = 4


def fuzzy_match(text: str, reference: str) -> float:
    """RapidFuzz's ratio (normalised indel similarity), of letters and digits alone and without regard to case.

    Not its weighted ratio, whose time is cubic in the length of texts, and which gives 0.9 for any part of the other.
    """
    return float(fuzz.ratio(text, reference, processor=utils.default_process) / 100)


def bleu(text: str, reference: str) -> float:
    """BLEU of one sentence (Papineni et al. 2002), without the orders that it is too short for.

    Orders without a match count as half of one match, then a quarter and so on (Chen & Cherry 2014, method 3), as
    sacreBLEU has it for sentences.
    """
    given, wanted = _tokens(text), _tokens(reference)
    if not given or not wanted:
        return float(given == wanted)
    logarithms, halves = [], 1.0
    for order in range(1, min(LONGEST_GRAM, len(given)) + 1):
        grams = Counter(_grams(given, order))
        matches = (grams & Counter(_grams(wanted, order))).total()
        if not matches:
            halves *= 2
        logarithms.append(math.log((matches or 1 / halves) / grams.total()))
    if halves == 2 ** len(logarithms):
        return 0.0  # nothing matches at all
    brevity = min(0.0, 1 - len(wanted) / len(given))
    return math.exp(brevity + sum(logarithms) / len(logarithms))


def gleu(text: str, reference: str) -> float:
    """Google's BLEU (Wu et al. 2016): the lower of precision and recall of all n-grams up to four words."""
    given, wanted = (
        Counter(gram for order in range(1, LONGEST_GRAM + 1) for gram in _grams(_tokens(each), order))
        for each in (text, reference)
    )
    if not given or not wanted:
        return float(given == wanted)
    return (given & wanted).total() / max(given.total(), wanted.total())


def rouge(order: int) -> Similarity:
    """ROUGE-N (Lin 2004): the F-measure of n-grams of words, in lower case and not stemmed, as in Google's package."""

    def measured(text: str, reference: str) -> float:
        given, wanted = (Counter(_grams(_words(each), order)) for each in (text, reference))
        return _f_measure((given & wanted).total(), given.total(), wanted.total())

    return measured


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L: the F-measure of the longest common subsequence of words."""
    given, wanted = _words(text), _words(reference)
    return _f_measure(LCSseq.similarity(given, wanted), len(given), len(wanted))


SIMILARITIES: Mapping[str, Similarity] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    **{f"rouge_{order}": rouge(order) for order in range(1, 6)},
    "rouge_l": rouge_l,
}


def _f_measure(matches: float, given: int, wanted: int) -> float:
    return 2 * matches / (given + wanted) if given + wanted else 0.0


def _tokens(text: str) -> list[str]:
    """Words and marks, case kept."""
    return re.findall(r"\w+|[^\w\s]", text)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _grams(items: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    return zip(*(items[start:] for start in range(order)), strict=False)
