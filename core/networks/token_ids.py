"""Texts as token ids, packed without padding until a batch is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

TEXTS_AT_ONCE = 4096
WORTH_A_GROUP = 192  # places of padding that cost more than going through a network once more


class TokenIds:
    """Token ids of texts in a row; indexed by rows, it gives what a transformers model takes, padded to the longest."""

    def __init__(self, tokens: torch.Tensor, lengths: Sequence[int], *, pad_token: int, truncated: int) -> None:
        self.tokens = tokens  # [tokens of all texts] int32
        self.lengths = torch.tensor(lengths)
        self.ends = torch.tensor(list(accumulate(lengths)))
        self.pad_token = pad_token
        self.truncated = truncated  # texts that were cut

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`input_ids` and `attention_mask`, [rows, longest] int64."""
        lengths = self.lengths[rows]
        places = torch.arange(int(lengths.max()))
        mask = places < lengths[:, None]
        starts = self.ends[rows] - lengths
        source = (starts[:, None] + places).clamp(max=len(self.tokens) - 1)
        ids = torch.where(mask, self.tokens[source].long(), self.pad_token)
        return {"input_ids": ids, "attention_mask": mask.long()}


def by_length(lengths: torch.Tensor) -> list[torch.Tensor]:
    """The rows of a batch, int64, in groups of like lengths, so that little is padding when each is cut to its longest.

    Halved where that saves most, and again, as long as it saves WORTH_A_GROUP places.
    """
    order = lengths.argsort(stable=True)
    groups, waiting = [], [order]
    while waiting:
        rows = waiting.pop()
        sizes = lengths[rows]
        saved = (sizes[-1] - sizes) * torch.arange(1, len(rows) + 1)
        if int(saved.max()) < WORTH_A_GROUP:
            groups.append(rows)
        else:
            cut = int(saved.argmax()) + 1
            waiting += [rows[cut:], rows[:cut]]
    return groups


def shortest(batch: Mapping[str, torch.Tensor], rows: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """These rows of what TokenIds gives, without the columns in which all of them are padding."""
    longest = int(batch["attention_mask"][rows].sum(1).max())
    return {name: tensor[rows, :longest] for name, tensor in batch.items()}


def encode(texts: Sequence[str], tokenizer: Any, *, max_length: int, is_target: bool = False) -> TokenIds:
    """The texts as `tokenizer` has them, special tokens included, each cut to `max_length` tokens.

    `is_target`: as texts to be written, for which some tokenizers of translation models have tokens of their own.
    """
    parts: list[np.ndarray[Any, np.dtype[np.int32]]] = []
    lengths: list[int] = []
    truncated = 0
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        block = list(texts[start : start + TEXTS_AT_ONCE])
        given = {"text_target" if is_target else "text": block}
        found = tokenizer(**given, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
        whole = [len(ids) == max_length for ids in found]
        truncated += _longer(
            [text for text, is_full in zip(block, whole, strict=True) if is_full], tokenizer, max_length
        )
        lengths += map(len, found)
        parts += [np.array(ids, dtype=np.int32) for ids in found]
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_truncation()  # it would be saved with the tokenizer
    tokens = torch.from_numpy(np.concatenate(parts))
    return TokenIds(tokens, lengths, pad_token=tokenizer.pad_token_id or 0, truncated=truncated)


def _longer(texts: Sequence[str], tokenizer: Any, max_length: int) -> int:
    """How many of these texts have more than `max_length` tokens."""
    if not texts:
        return 0
    found = tokenizer(list(texts), truncation=True, max_length=max_length + 1, return_attention_mask=False)
    return sum(len(ids) > max_length for ids in found["input_ids"])
