"""Counts the words of documents and turns them into numbers, the most frequent word first."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as arrow
import torch

from core.data.phrases import NumberedText, PhraseRule, join_phrases

WORD = re.compile(r"\w+(?:['’]\w+)*")  # don't and l’amour are one word each
BATCH_CHARACTERS = 8 * 2**20


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
    tokens, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for texts in _batches(documents):
        found, ends = _number_batch([text.lower() for text in texts] if lowercase else texts, numbers)
        tokens.append(found)
        lengths.append(np.diff(ends))
    counts = np.concatenate(lengths)
    owners = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return NumberedText(list(numbers), np.concatenate(tokens), owners), len(counts)


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """The documents, so many at a time that the words that are in several of them are looked at but once."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document) + 1
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _number_batch(
    texts: Sequence[str], numbers: defaultdict[str, int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The texts' words by number, and where those of each text end, after a 0.

    No word contains white space: so the text is cut there first, and only different pieces are searched for words.
    """
    encoded = pa.array([text.encode("utf-8", "replace") for text in texts], pa.large_binary())
    split = arrow.utf8_split_whitespace(encoded.cast(pa.large_string()))
    pieces = split.flatten().dictionary_encode()
    words = [[numbers[word] for word in WORD.findall(piece)] for piece in pieces.dictionary.to_pylist()]
    counts = np.fromiter(map(len, words), np.int64, len(words))
    flat = np.fromiter(chain.from_iterable(words), np.int32, counts.sum())
    places = pieces.indices.to_numpy()
    ends = np.append(0, counts[places].cumsum())
    text_ends = ends[split.offsets.to_numpy()]
    if (counts == 1).all():
        return flat[places], text_ends
    shift = (counts.cumsum() - counts)[places] - ends[:-1]  # from a word's place in the text to that in `flat`
    return flat[np.repeat(shift, counts[places]) + np.arange(ends[-1])], text_ends
