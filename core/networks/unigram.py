"""Unigram vocabularies learned from words, the same ones every time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

LONGEST_PIECE = 12
LONGEST_WORD = 24  # characters; what is longer is learned from in parts
MOST_WORDS = 200_000
SEEDS = 12  # pieces to begin with, for each that is wanted
KEPT = 0.75  # of the pieces in each round
EXPECTATIONS = 2  # between rounds
LEAST_COUNT = 0.1  # what a character that is never chosen counts as


def train_unigram(words: Mapping[str, int], *, size: int, alphabet: int) -> list[tuple[str, float]]:
    """At most `size` pieces and their log-probabilities, likeliest first (Kudo 2018, Subword regularization).

    `words`: how often each occurs. From many frequent substrings those go, round by round, without which the text is
    least unlikely; probabilities are fitted by expectation maximization. The `alphabet` most frequent characters stay.
    The trainer of `tokenizers` adds floats in the order of a hash map: no two of its vocabularies are alike.
    """
    parts = _in_parts(words)
    characters = _most_frequent(Counter(_characters(parts)), alphabet)
    pieces = [*characters, *_seeds(parts, SEEDS * size, set(characters))]
    texts, inner = _Lattices.of(parts, pieces), _Lattices.of(pieces, pieces, itself=False)
    is_kept = np.ones(len(pieces), dtype=bool)
    probabilities = is_kept / len(pieces)
    while True:
        for _ in range(EXPECTATIONS):
            counts = np.where(is_kept, np.maximum(texts.expected_counts(probabilities), LEAST_COUNT), 0)
            probabilities = counts / counts.sum()
        if is_kept.sum() <= max(size, len(characters)):
            break
        losses = np.where(is_kept, _losses(counts, probabilities, inner.likelihoods(probabilities)), -np.inf)
        losses[: len(characters)] = np.inf
        wanted = max(size, len(characters), int(KEPT * is_kept.sum()))
        is_kept[np.argsort(-losses, kind="stable")[wanted:]] = False
    found = [(pieces[place], float(np.log(probabilities[place]))) for place in np.flatnonzero(is_kept)]
    return sorted(found, key=lambda piece: (-piece[1], piece[0]))


def _in_parts(words: Mapping[str, int]) -> dict[str, int]:
    """The most frequent words, long ones cut, and how often each part occurs."""
    parts: Counter[str] = Counter()
    for word in _most_frequent(words, MOST_WORDS):
        for start in range(0, len(word), LONGEST_WORD):
            parts[word[start : start + LONGEST_WORD]] += words[word]
    return dict(sorted(parts.items()))


def _most_frequent(counts: Mapping[str, int], limit: int) -> list[str]:
    return sorted(counts, key=lambda text: (-counts[text], text))[:limit]


def _characters(parts: Mapping[str, int]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for part, count in parts.items():
        for character in part:
            counts[character] += count
    return counts


def _seeds(parts: Mapping[str, int], limit: int, characters: set[str]) -> list[str]:
    """The substrings that cover most of the text, of known characters."""
    counts: Counter[str] = Counter()
    for part, count in parts.items():
        for start in range(len(part)):
            for end in range(start + 2, min(start + LONGEST_PIECE, len(part)) + 1):
                counts[part[start:end]] += count
    cover = {piece: count * len(piece) for piece, count in counts.items() if count > 1 and characters.issuperset(piece)}
    return _most_frequent(cover, limit)


@dataclass(frozen=True)
class _Lattices:
    """All ways to cut texts into pieces: for texts of each length, which piece begins where."""

    groups: list[tuple[Integers, Integers, Floats]]  # rows of texts; pieces [texts, start, length - 1], -1 none; counts
    texts: int

    @classmethod
    def of(cls, texts: Mapping[str, int] | Sequence[str], pieces: Sequence[str], *, itself: bool = True) -> _Lattices:
        """`itself`: whether a text may be one piece as a whole."""
        numbers = {piece: number for number, piece in enumerate(pieces)}
        by_length: dict[int, list[tuple[int, str]]] = {}
        for row, text in enumerate(texts):
            by_length.setdefault(len(text), []).append((row, text))
        groups = []
        for length, members in sorted(by_length.items()):
            widest = min(length, LONGEST_PIECE)
            found = np.full((len(members), length, widest), -1, dtype=np.int64)
            for place, (_, text) in enumerate(members):
                for start in range(length):
                    for end in range(start + 1, min(start + widest, length) + 1):
                        if itself or end - start < length:
                            found[place, start, end - start - 1] = numbers.get(text[start:end], -1)
            rows = np.array([row for row, _ in members])
            counts = [float(texts[text]) if isinstance(texts, Mapping) else 1.0 for _, text in members]
            groups.append((rows, found, np.array(counts)))
        return cls(groups, len(texts))

    def likelihoods(self, probabilities: Floats) -> Floats:
        """Of each text, [texts], summed over all ways to cut it."""
        result = np.zeros(self.texts)
        for rows, found, _ in self.groups:
            result[rows] = _forward(np.append(probabilities, 0.0)[found])[-1]
        return result

    def expected_counts(self, probabilities: Floats) -> Floats:
        """How often each piece is used, [pieces], over all ways to cut the texts, each as likely as it is."""
        totals = np.zeros(len(probabilities) + 1)
        for _, found, counts in self.groups:
            edges = np.append(probabilities, 0.0)[found]  # [texts, start, length - 1]
            forward, backward = _forward(edges), _backward(edges)
            share = np.divide(counts, forward[-1], out=np.zeros_like(counts), where=forward[-1] > 0)
            for start in range(edges.shape[1]):
                for length in range(min(edges.shape[2], edges.shape[1] - start)):
                    used = forward[start] * edges[:, start, length] * backward[start + length + 1] * share
                    totals += np.bincount(found[:, start, length] % len(totals), used, len(totals))
        return totals[:-1]


def _forward(edges: Floats) -> list[Floats]:
    """The likelihood of each text's first characters, by how many these are."""
    texts, length, widest = edges.shape
    sums = [np.ones(texts)]
    for end in range(1, length + 1):
        begins = range(max(0, end - widest), end)
        sums.append(sum((sums[start] * edges[:, start, end - start - 1] for start in begins), np.zeros(texts)))
    return sums


def _backward(edges: Floats) -> list[Floats]:
    """The likelihood of what follows each text's first characters, by how many these are."""
    texts, length, widest = edges.shape
    sums = [np.ones(texts)] * (length + 1)
    for start in reversed(range(length)):
        ends = range(start + 1, min(start + widest, length) + 1)
        sums[start] = sum((edges[:, start, end - start - 1] * sums[end] for end in ends), np.zeros(texts))
    return sums


def _losses(counts: Floats, probabilities: Floats, without: Floats) -> Floats:
    """By how much the text's log-likelihood falls, about, where each piece is cut up instead, [pieces]."""
    least = math.ulp(0.0)
    found: Floats = counts * (np.log(np.maximum(probabilities, least)) - np.log(np.maximum(without, least)))
    return found
