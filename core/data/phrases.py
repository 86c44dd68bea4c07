"""Joins words that come together more often than by chance, such as new_york, in passes over a text of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class NumberedText:
    """All words of documents by number, in the order of the text."""

    words: list[str]
    tokens: npt.NDArray[np.int32]  # [n] each word's place in `words`
    documents: npt.NDArray[np.int32]  # [n] the number of the document that it stands in


@dataclass(frozen=True)
class PhraseRule:
    """Joins a and b if (count(ab) - min_count) * n / (count(a) * count(b)) > threshold, n words of text (Mikolov 2013).

    A pass joins two at a time, the left first; the next may join what it made to phrases of three and four words.
    """

    passes: int
    threshold: float
    min_count: int


def join_phrases(text: NumberedText, rule: PhraseRule) -> NumberedText:
    """The text with its phrases joined by _, across no document's end."""
    for _ in range(rule.passes):
        text = _join_pairs(text, rule)
    return text


def _join_pairs(text: NumberedText, rule: PhraseRule) -> NumberedText:
    """One pass."""
    keys = _pair_keys(text, rule.min_count)
    phrases = _frequent_pairs(text, keys, rule)
    if not len(phrases):
        return text
    places = np.searchsorted(phrases, keys).clip(max=len(phrases) - 1)
    is_start = _leftmost(phrases[places] == keys)
    words, numbers = _name(text.words, phrases)
    tokens = np.where(is_start, numbers[places], text.tokens[:-1]).astype(np.int32)
    is_kept = np.concatenate([[True], ~is_start])  # the second word of a phrase goes
    return NumberedText(words, np.append(tokens, text.tokens[-1:])[is_kept], text.documents[is_kept])


def _pair_keys(text: NumberedText, min_count: int) -> npt.NDArray[np.int64]:
    """A number for each word and its follower, [n - 1]; -1 where a document ends or either is too rare."""
    counts = np.bincount(text.tokens, minlength=len(text.words))
    is_frequent = (counts >= min_count)[text.tokens]
    is_pair = (text.documents[1:] == text.documents[:-1]) & is_frequent[1:] & is_frequent[:-1]
    return np.where(is_pair, text.tokens[:-1].astype(np.int64) * len(text.words) + text.tokens[1:], -1)


def _frequent_pairs(text: NumberedText, keys: npt.NDArray[np.int64], rule: PhraseRule) -> npt.NDArray[np.int64]:
    """The keys of the pairs to be joined, rising."""
    counts = np.bincount(text.tokens, minlength=len(text.words))
    pairs, together = np.unique(keys[keys >= 0], return_counts=True)
    first, second = np.divmod(pairs, len(text.words))
    scores = (together - rule.min_count) * float(len(text.tokens)) / (counts[first] * counts[second])
    chosen: npt.NDArray[np.int64] = pairs[scores > rule.threshold]
    return chosen


def _leftmost(is_pair: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of pairs that overlap, the first, the third and so on."""
    places = np.arange(len(is_pair))
    is_first = is_pair & ~np.concatenate([[False], is_pair[:-1]])
    runs = np.maximum.accumulate(np.where(is_first, places, 0))
    chosen: npt.NDArray[np.bool_] = is_pair & ((places - runs) % 2 == 0)
    return chosen


def _name(words: list[str], phrases: npt.NDArray[np.int64]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The words with the phrases' names, and the number of each phrase; a name known before keeps its."""
    names = [f"{words[key // len(words)]}_{words[key % len(words)]}" for key in phrases.tolist()]
    known = {word: number for number, word in enumerate(words)}
    numbers = np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int32)
    return list(known), numbers
