"""The character n-grams of words, hashed into buckets as fastText does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FNV_START, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)


class NGrams(NamedTuple):
    """How a word is cut: n-grams of `min_n` to `max_n` characters of <word>, hashed into `buckets` numbers."""

    min_n: int
    max_n: int
    buckets: int


def hash_ngrams(words: Sequence[str], cut: NGrams) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every n-gram of every word: the place of its word, rising, and its bucket; one that comes twice is there twice.

    Bojanowski et al. 2017, by the FNV-1a hash of its UTF-8 with fastText's signed bytes; a bracket alone is no n-gram.
    """
    codes = np.frombuffer("".join(f"<{word}>" for word in words).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.array([len(word) + 2 for word in words], dtype=np.int64)
    owners = np.repeat(np.arange(len(words)), lengths)
    ends = np.cumsum(lengths)
    left = np.repeat(ends, lengths) - np.arange(len(codes))  # characters from here to the end of the word
    is_bracket = (left == 1) | (left == np.repeat(lengths, lengths))
    utf8 = _utf8(codes)
    hashes = np.full(len(codes), FNV_START)
    places, buckets = [], []
    for n in range(1, cut.max_n + 1):
        starts = np.flatnonzero(left >= n)
        hashes[starts] = _hash_on(hashes[starts], utf8[starts + n - 1])
        if n >= cut.min_n:
            found = starts[~is_bracket[starts]] if n == 1 else starts
            places.append(owners[found])
            buckets.append((hashes[found] % np.uint32(cut.buckets)).astype(np.int64))
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(places)[order], np.concatenate(buckets)[order]


def _utf8(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """The bytes of each character, [characters, 4], -1 where it has fewer."""
    count = 1 + (codes >= 0x80).astype(int) + (codes >= 0x800) + (codes >= 0x10000)
    out = np.full((len(codes), 4), -1, dtype=np.int64)
    lead = np.array([0, 0, 0xC0, 0xE0, 0xF0])
    for place in range(4):
        shift = 6 * np.maximum(count - 1 - place, 0)
        bits = codes.astype(np.int64) >> shift
        value = bits | lead[count] if place == 0 else 0x80 | (bits & 0x3F)
        out[:, place] = np.where(place < count, value, -1)
    return out


def _hash_on(hashes: npt.NDArray[np.uint32], utf8: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """FNV-1a of what was hashed so far and one more character."""
    with np.errstate(over="ignore"):
        for place in range(4):
            byte = utf8[:, place]
            signed = np.where(byte < 0x80, byte, byte - 0x100).astype(np.int64).astype(np.uint32)
            hashes = np.where(byte >= 0, (hashes ^ signed) * FNV_PRIME, hashes)
    return hashes
