"""Documents to learn from and to validate on, read from their file whenever they are needed, never all in memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import torch

from core.data.text import read_documents
from core.errors import InvalidData
from core.spec import FileReference
from core.training.run import Run

FEWEST_HELD_OUT = 1  # documents; where the fraction is less than that, the end of each document is held out
LEAST_CHARACTERS = 1000  # to learn from, before it is called too little to learn from
SAMPLE_CHARACTERS = 2**26  # of the texts that a tokenizer is learned from

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


class DocumentsSpec(Protocol):
    """What says which documents are read."""

    @property
    def text(self) -> str | None:
        """Column of the texts."""

    @property
    def seed(self) -> int:
        """Where all randomness comes from."""

    @property
    def validation(self) -> FileReference | None:
        """A file to validate on."""

    @property
    def validation_fraction(self) -> float | None:
        """Part of the data set to validate on."""


@dataclass(frozen=True)
class Documents:
    """A data set's documents, and which of them are held out."""

    run: Run
    spec: DocumentsSpec
    is_held_out: np.ndarray[Any, np.dtype[np.bool_]]  # [documents of the data set]
    characters: int
    tail: float | None = None  # part of each document that is held out at its end, where whole ones are not

    def __len__(self) -> int:
        return len(self.is_held_out)

    @property
    def is_validated(self) -> bool:
        """Whether anything is held out."""
        return self.spec.validation is not None or self.spec.validation_fraction is not None

    def training(self) -> Iterator[str]:
        """What is learned from."""
        for is_held_out, text in zip(self.is_held_out, self._all(), strict=True):
            if not is_held_out and (head := text[: self._border(text)]).strip():
                yield head

    def held_out(self) -> Iterator[str]:
        """What is validated on."""
        if self.spec.validation is not None:
            yield from read_documents(self.run.inputs["validation"], text=self.spec.text)
            return
        for is_held_out, text in zip(self.is_held_out, self._all(), strict=True):
            found = text if is_held_out else text[self._border(text) :]
            if found.strip():
                yield found

    def sample(self) -> Iterator[str]:
        """What a tokenizer is learned from: all training documents, or every so manieth where that is very much."""
        every = -(-self.characters // SAMPLE_CHARACTERS)
        for number, text in enumerate(self.training()):
            if number % every == 0:
                yield text

    def _all(self) -> Iterator[str]:
        return read_documents(self.run.dataset, text=self.spec.text)

    def _border(self, text: str) -> int:
        """Where the end begins that is held out: at a space, not inside a word."""
        if self.tail is None:
            return len(text)
        border = round(len(text) * (1 - self.tail))
        space = text.find(" ", border)
        return space if space >= 0 else len(text)


class Sample:
    """Goes through `documents.sample()` as often as it is asked to."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents

    def __iter__(self) -> Iterator[str]:
        return self.documents.sample()


def read_split(spec: DocumentsSpec, run: Run) -> Documents:
    """Which documents to learn from and which to hold out; says what usually ruins such a run.

    Copies of a document stand on the same side. Raises InvalidData where there is nothing to learn from.
    """
    hashes, characters = _hashes(read_documents(run.dataset, text=spec.text))
    nobody = np.zeros(len(hashes), dtype=bool)
    documents = Documents(run, spec, nobody, characters)
    if spec.validation is not None:
        _warn_of_leakage(hashes, documents, run)
    elif spec.validation_fraction is not None:
        documents = _hold_out(documents, hashes, spec.validation_fraction)
    if characters < LEAST_CHARACTERS:
        raise InvalidData(
            f"{characters:,} characters of text are too few to learn a language from: send at least "
            f"{LEAST_CHARACTERS:,}; some million are what it takes",
            param="dataset",
        )
    _warn_of_copies(hashes, run)
    return documents


def _hashes(texts: Iterator[str]) -> tuple[Hashes, int]:
    """A number for each text that is the same for the same text, and how many characters there are."""
    found = array("Q")
    characters = 0
    for text in texts:
        found.append(int.from_bytes(blake2b(text.strip().encode(), digest_size=8).digest()))
        characters += len(text)
    return np.frombuffer(found, dtype=np.uint64), characters


def _hold_out(documents: Documents, hashes: Hashes, fraction: float) -> Documents:
    """Whole documents with all their copies, or the end of each where they are too few for that."""
    different, kinds = np.unique(hashes, return_inverse=True)
    count = round(len(different) * fraction)
    if count < FEWEST_HELD_OUT:
        documents.run.message(
            f"{len(different):,} different documents are too few to hold out {fraction:.1%} of them: the end of each "
            "is held out instead"
        )
        return Documents(documents.run, documents.spec, documents.is_held_out, documents.characters, tail=fraction)
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(documents.spec.seed)).numpy()
    chosen = np.zeros(len(different), dtype=bool)
    chosen[order[:count]] = True
    return Documents(documents.run, documents.spec, chosen[kinds], documents.characters)


def _warn_of_leakage(hashes: Hashes, documents: Documents, run: Run) -> None:
    held_out, _ = _hashes(documents.held_out())
    leaked = int(np.isin(held_out, hashes).sum())
    if leaked:
        run.message(
            f"{leaked:,} of {len(held_out):,} validation documents also stand in the data set: the validation loss "
            "will be too good; take them out of one of the two",
            "warn",
        )


def _warn_of_copies(hashes: Hashes, run: Run) -> None:
    copies = len(hashes) - len(np.unique(hashes))
    if copies > 0.01 * len(hashes):
        run.message(
            f"{copies:,} of {len(hashes):,} documents are copies of others, and are learned by heart sooner: leave "
            "them out of the data set",
            "warn",
        )
