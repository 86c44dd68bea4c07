"""Documents as token ids, one after another without padding, four bytes a token, on disk rather than in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

DOCUMENTS_AT_ONCE = 1024
CHARACTERS_AT_ONCE = 2**24


class TokenSequences(NamedTuple):
    """Sequences of tokens, one after another."""

    tokens: torch.Tensor  # [tokens of all sequences] int32
    lengths: list[int]
    begins_word: torch.Tensor | None = None  # [tokens of all sequences] bool: whether a word begins there


def tokenize(texts: Iterable[str], tokenizer: Any, *, with_words: bool = False) -> Iterator[TokenSequences]:
    """Each text without special tokens, none cut short, many texts at a time.

    `tokenizer`: of transformers, with a backend of `tokenizers`; `with_words`: note also where words begin.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # a tokenizer made elsewhere may have been saved with it
    backend.no_padding()
    encode = backend.encode_batch if with_words else backend.encode_batch_fast  # that one forgets where tokens stood
    for block in _blocks(texts):
        tokens, lengths, begins = array("i"), [], []
        for encoding in encode(block, add_special_tokens=False):
            ids = encoding.ids
            tokens.extend(ids)
            lengths.append(len(ids))
            if with_words:
                words = np.array([-1 if word is None else word for word in encoding.word_ids])
                begins.append(np.diff(words, prepend=-2) != 0)
        flat = torch.from_numpy(np.frombuffer(tokens, dtype=np.int32)) if tokens else torch.empty(0).int()
        yield TokenSequences(flat, lengths, torch.from_numpy(np.concatenate(begins)) if begins else None)


def gathered(blocks: Iterable[TokenSequences], *, folder: Path) -> TokenSequences:
    """All sequences together, their tokens in an unnamed file in `folder`, which is mapped.

    Of tokens that are mapped, memory holds as many as it has room for; the system takes it back when it needs it.
    """
    lengths: list[int] = []
    begins: list[torch.Tensor] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for block in blocks:
            file.write(block.tokens.numpy().tobytes())
            lengths += block.lengths
            begins += [] if block.begins_word is None else [block.begins_word]
        file.flush()
        is_empty = not file.tell()
        tokens = torch.empty(0).int() if is_empty else torch.from_numpy(np.memmap(file, dtype=np.int32, mode="c"))
    return TokenSequences(tokens, lengths, torch.cat(begins) if begins else None)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """So many texts at once that their encodings do not fill the memory."""
    remaining = iter(texts)
    block: list[str] = []
    characters = 0
    for text in remaining:
        block.append(text)
        characters += len(text)
        if len(block) == DOCUMENTS_AT_ONCE or characters > CHARACTERS_AT_ONCE:
            yield block
            block, characters = [], 0
    if block:
        yield block


def cut(sequences: TokenSequences, *, longest: int) -> TokenSequences:
    """The same tokens in sequences of at most `longest`: what is longer goes on in the next."""
    lengths = []
    for length in sequences.lengths:
        whole, rest = divmod(length, longest)
        lengths += [longest] * whole + ([rest] if rest else [])
    return sequences._replace(lengths=lengths)


def between(sequences: TokenSequences, *, first: int | None, last: int | None) -> TokenSequences:
    """The same sequences with one more token at the beginning and the end of each, where these are not None."""
    lengths = torch.tensor(sequences.lengths, dtype=torch.int64)
    wider = lengths + (first is not None) + (last is not None)
    starts = wider.cumsum(0) - wider
    places = torch.arange(len(sequences.tokens)) + _shift(lengths, starts, first is not None)
    tokens = torch.empty(int(wider.sum()), dtype=torch.int32)
    tokens[places] = sequences.tokens
    is_begin = None
    if sequences.begins_word is not None:
        is_begin = torch.ones(len(tokens), dtype=torch.bool)
        is_begin[places] = sequences.begins_word
    if first is not None:
        tokens[starts] = first
    if last is not None:
        tokens[starts + wider - 1] = last
    return TokenSequences(tokens, wider.tolist(), is_begin)


def _shift(lengths: torch.Tensor, starts: torch.Tensor, has_first: bool) -> torch.Tensor:
    """How much further each token lies, [tokens]."""
    return (starts + int(has_first) - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
