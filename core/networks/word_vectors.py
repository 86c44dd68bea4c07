"""Word vectors: a table of inputs, which make the vectors, and one of outputs, which predict a word's neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from core.data.subwords import NGrams, hash_ngrams
from core.networks.saving import network

VOCABULARY = "vocabulary.json"


class Rows(NamedTuple):
    """The rows of the inputs whose mean is each word's vector, one word after the other."""

    rows: torch.Tensor  # [rows of all words] int64
    counts: torch.Tensor  # [words] int64, how many are each word's
    starts: torch.Tensor  # [words] int64, where each word's begin

    @classmethod
    def of(cls, rows: torch.Tensor, counts: torch.Tensor) -> Rows:
        """From the rows and their number per word."""
        return cls(rows, counts, counts.cumsum(0) - counts)

    def select(self, words: torch.Tensor) -> Rows:
        """Those of the given words, in their order."""
        counts = self.counts[words]
        chosen = Rows.of(self.rows[:0], counts)
        shift = (self.starts[words] - chosen.starts).repeat_interleave(counts)
        return chosen._replace(rows=self.rows[shift + torch.arange(len(shift), device=shift.device)])


@network("word-vectors")
class WordVectors(nn.Module):
    """Vectors of the words of a vocabulary, which is kept beside the weights in vocabulary.json.

    With `ngrams`, (min_n, max_n, buckets), a word's vector is the mean of its own row of the inputs and of those of its
    character n-grams (Bojanowski et al. 2017), so that unknown words have one too. Buckets that no word of the
    vocabulary meets have no row. `inputs` begins uniform in +-0.5 / vector_size, `outputs` at zero, as in word2vec.
    `outputs_size`: rows and numbers a row of `outputs`, if not one of `vector_size` numbers for each word.
    """

    inputs: torch.Tensor  # [words + n-grams, vector_size]
    outputs: torch.Tensor  # outputs_size
    ngram_buckets: torch.Tensor  # [n-grams] int64, the bucket of each row of the inputs after the words', rising

    def __init__(
        self,
        vocabulary_size: int,
        vector_size: int,
        *,
        outputs_size: Sequence[int] | None = None,
        ngrams: Sequence[int] | None = None,
        ngram_rows: int = 0,
    ) -> None:
        super().__init__()
        self.config = {
            "vocabulary_size": vocabulary_size,
            "vector_size": vector_size,
            "outputs_size": outputs_size,
            "ngrams": ngrams,
            "ngram_rows": ngram_rows,
        }
        self.cut = NGrams(*ngrams) if ngrams else None
        self.words: tuple[str, ...] = ()
        self.numbers: dict[str, int] = {}
        inputs = (torch.rand(vocabulary_size + ngram_rows, vector_size) - 0.5) / vector_size
        self.register_buffer("inputs", new_table(inputs.shape).copy_(inputs))
        self.register_buffer("outputs", new_table(outputs_size or (vocabulary_size, vector_size)))
        if self.cut:
            self.register_buffer("ngram_buckets", torch.zeros(ngram_rows, dtype=torch.int64))

    @classmethod
    def for_words(
        cls,
        words: Sequence[str],
        vector_size: int,
        *,
        outputs_size: Sequence[int] | None = None,
        ngrams: NGrams | None = None,
    ) -> WordVectors:
        """Fresh vectors for these words, with a row for every n-gram in them."""
        if ngrams is None:
            made = cls(len(words), vector_size, outputs_size=outputs_size)
        else:
            buckets = torch.from_numpy(np.unique(hash_ngrams(words, ngrams)[1]))
            made = cls(len(words), vector_size, outputs_size=outputs_size, ngrams=ngrams, ngram_rows=len(buckets))
            made.ngram_buckets.copy_(buckets)
        made.name_words(words)
        return made

    def name_words(self, words: Sequence[str]) -> None:
        """Say which word each row stands for."""
        self.words = tuple(words)
        self.numbers = {word: number for number, word in enumerate(words)}

    def read_files(self, folder: Path) -> None:
        """Take the words from the folder's vocabulary.json."""
        self.name_words(json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))["words"])

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """The vectors of words given by their numbers, [..., vector_size]."""
        if self.cut is None:
            return self.inputs[numbers]
        rows = self.rows_of([self.words[number] for number in numbers.flatten().tolist()])
        return self.mean(rows).view(*numbers.shape, -1)

    def rows_of(self, words: Sequence[str]) -> Rows:
        """The rows of the inputs for each word: its own, if it is known, then those of its n-grams, if any are."""
        own = np.array([self.numbers.get(word, -1) for word in words])
        owners, rows = np.flatnonzero(own >= 0), own[own >= 0]
        if self.cut is not None:
            places, buckets = hash_ngrams(words, self.cut)
            known = self.ngram_buckets.cpu().numpy()
            found = np.searchsorted(known, buckets)
            is_known = np.append(known, -1)[found] == buckets
            owners = np.append(owners, places[is_known])
            rows = np.append(rows, len(self.words) + found[is_known])
        order = np.argsort(owners, kind="stable")
        counts = np.bincount(owners, minlength=len(words))
        device = self.inputs.device
        return Rows.of(torch.from_numpy(rows[order]).to(device), torch.from_numpy(counts).to(device))

    def mean(self, rows: Rows) -> torch.Tensor:
        """The mean of each word's rows, [words, vector_size]."""
        return functional.embedding_bag(rows.rows, self.inputs, rows.starts, mode="mean")

    @property
    def vectors(self) -> torch.Tensor:
        """The vectors of all words, [words, vector_size]."""
        return self.inputs if self.cut is None else self.mean(self.rows_of(self.words))

    def vector(self, word: str) -> torch.Tensor:
        """The vector of a word; raises KeyError if it is not in the vocabulary and none of its n-grams is known."""
        rows = self.rows_of([word])
        if not len(rows.rows):
            raise KeyError(word)
        return self.mean(rows)[0]

    def nearest(self, word: str, n: int = 10) -> list[tuple[str, float]]:
        """The n other words whose vectors have the largest cosine with this word's, and that cosine."""
        cosines = functional.cosine_similarity(self.vectors, self.vector(word)[None], dim=1)
        if word in self.numbers:
            cosines[self.numbers[word]] = -2
        best, numbers = cosines.topk(min(n, len(self.words) - 1))
        return [(self.words[number], cosine) for number, cosine in zip(numbers.tolist(), best.tolist(), strict=True)]


def new_table(shape: Sequence[int]) -> torch.Tensor:
    """Zeros in NumPy's memory, which asks for huge pages: rows that lie far apart are then reached twice as fast."""
    return torch.from_numpy(np.empty(tuple(shape), dtype=np.float32)).zero_()


def write_word2vec(network: WordVectors, path: Path) -> None:
    """Write the vectors in word2vec's text format, which gensim, fastText and spaCy read."""
    vectors = network.vectors
    count, size = vectors.shape
    line = "%s " + " ".join(["%.6g"] * size) + "\n"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{count} {size}\n")
        for word, vector in zip(network.words, vectors.tolist(), strict=True):
            file.write(line % (word, *vector))
