"""Word vectors: a table of inputs, which are the vectors, and one of outputs, which predict a word's neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from core.networks.saving import network

VOCABULARY = "vocabulary.json"


@network("word-vectors")
class WordVectors(nn.Module):
    """Vectors of the words of a vocabulary, which is kept beside the weights in vocabulary.json.

    `inputs` begins uniform in +-0.5 / vector_size and `outputs` at zero, as in Mikolov's word2vec.
    """

    inputs: torch.Tensor  # [words, vector_size], the word vectors
    outputs: torch.Tensor  # [words, vector_size]

    def __init__(self, vocabulary_size: int, vector_size: int) -> None:
        super().__init__()
        self.config = {"vocabulary_size": vocabulary_size, "vector_size": vector_size}
        self.words: tuple[str, ...] = ()
        self.numbers: dict[str, int] = {}
        self.register_buffer("inputs", (torch.rand(vocabulary_size, vector_size) - 0.5) / vector_size)
        self.register_buffer("outputs", torch.zeros(vocabulary_size, vector_size))

    def name_words(self, words: Sequence[str]) -> None:
        """Say which word each row stands for."""
        self.words = tuple(words)
        self.numbers = {word: number for number, word in enumerate(words)}

    def read_files(self, folder: Path) -> None:
        """Take the words from the folder's vocabulary.json."""
        self.name_words(json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))["words"])

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """The vectors of words given by their numbers, [..., vector_size]."""
        return self.inputs[numbers]

    def vector(self, word: str) -> torch.Tensor:
        """The vector of a word; raises KeyError if it is not in the vocabulary."""
        return self.inputs[self.numbers[word]]

    def nearest(self, word: str, n: int = 10) -> list[tuple[str, float]]:
        """The n other words whose vectors have the largest cosine with this word's, and that cosine."""
        cosines = functional.cosine_similarity(self.inputs, self.vector(word)[None], dim=1)
        cosines[self.numbers[word]] = -2
        best, numbers = cosines.topk(min(n, len(self.words) - 1))
        return [(self.words[number], cosine) for number, cosine in zip(numbers.tolist(), best.tolist(), strict=True)]


def write_word2vec(network: WordVectors, path: Path) -> None:
    """Write the vectors in word2vec's text format, which gensim, fastText and spaCy read."""
    count, size = network.inputs.shape
    line = "%s " + " ".join(["%.6g"] * size) + "\n"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{count} {size}\n")
        for word, vector in zip(network.words, network.inputs.tolist(), strict=True):
            file.write(line % (word, *vector))
