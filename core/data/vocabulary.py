"""Counts the words of documents and turns them into numbers, the most frequent word first."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch

from core.data.phrases import NumberedText, PhraseRule, join_phrases

WORD = re.compile(r"\w+(?:['’]\w+)*")  # don't and l’amour are one word each


@dataclass(frozen=True)
class Vocabulary:
    """Words by falling frequency, and how often each occurs; a word's number is its place."""

    words: tuple[str, ...]
    counts: torch.Tensor  # [words] int64

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class Corpus:
    """Documents as numbers, those words left out that are not in the vocabulary."""

    vocabulary: Vocabulary
    tokens: torch.Tensor  # [n] int32, a word's number
    documents: torch.Tensor  # [n] int32, the number of the document it stands in
    document_count: int
    words_read: int  # with those left out

    def part(self, chosen: torch.Tensor) -> Corpus:
        """Only the documents chosen, [documents] bool, with the numbers that they have; the vocabulary stays."""
        is_in = chosen[self.documents]
        return replace(self, tokens=self.tokens[is_in], documents=self.documents[is_in])


def read_corpus(
    documents: Iterable[str],
    *,
    min_count: int = 1,
    max_words: int | None = None,
    lowercase: bool = True,
    phrases: PhraseRule | None = None,
) -> Corpus:
    """Split the documents into words, join phrases, and number what occurs `min_count` times, at most `max_words`.

    Words of one count are ordered by their first appearance, phrases last. Holds 8 bytes a word, and the distinct
    words.
    """
    text, document_count = _number(documents, lowercase=lowercase)
    words_read = len(text.tokens)
    if phrases is not None:
        text = join_phrases(text, phrases)
    counts = np.bincount(text.tokens, minlength=len(text.words))
    order = np.argsort(-counts, kind="stable")[:max_words]
    order = order[counts[order] >= min_count]
    places = np.full(len(counts), -1, dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    encoded = places[text.tokens]
    is_kept = encoded >= 0
    return Corpus(
        vocabulary=Vocabulary(tuple(text.words[place] for place in order), torch.from_numpy(counts[order])),
        tokens=torch.from_numpy(encoded[is_kept]),
        documents=torch.from_numpy(text.documents[is_kept]),
        document_count=document_count,
        words_read=words_read,
    )


def _number(documents: Iterable[str], *, lowercase: bool) -> tuple[NumberedText, int]:
    """The documents' words by number, in the order of their first appearance, and how many documents there are."""
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    tokens = array("i")
    ends = array("q", [0])
    for document in documents:
        tokens.extend(map(numbers.__getitem__, WORD.findall(document.lower() if lowercase else document)))
        ends.append(len(tokens))
    found = np.frombuffer(tokens, dtype=np.int32) if tokens else np.empty(0, np.int32)
    owners = np.repeat(np.arange(len(ends) - 1, dtype=np.int32), np.diff(ends))
    return NumberedText(list(numbers), found, owners), len(ends) - 1
