"""Which tokens a masked language model has to guess, and what stands in their places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from core.data.packing import IGNORED, NO_SEQUENCE, PackedBatch

MASKED, REPLACED = 0.8, 0.1  # parts of the tokens to guess; the rest stay as they are


@dataclass(frozen=True)
class Masking:
    """How tokens are masked: 80 % become the mask, 10 % another token, 10 % stay (Devlin et al. 2019, section 3.1)."""

    rate: float  # part of the tokens to guess
    mask_token: int
    is_special: torch.Tensor  # [vocabulary] bool: never to guess, and never put in a place

    @classmethod
    def of(cls, tokenizer: Any, *, vocabulary: int, rate: float) -> Masking:
        """For the tokens of a transformers tokenizer; `vocabulary`: how many its network knows."""
        is_special = torch.zeros(vocabulary, dtype=torch.bool)
        is_special[torch.tensor([number for number in tokenizer.all_special_ids if number < vocabulary])] = True
        is_special[len(tokenizer) :] = True
        return cls(rate, tokenizer.mask_token_id, is_special)

    def masked(
        self, batch: PackedBatch, *, words: torch.Tensor | None = None, generator: torch.Generator
    ) -> PackedBatch:
        """The batch with tokens to guess as its targets.

        `words` [rows, longest]: the number of the word in its row that each token is of, to guess whole words together.
        """
        shape = batch.tokens.shape
        draws = torch.rand(shape, generator=generator)
        if words is not None:
            draws = torch.rand((shape[0], int(words.max()) + 1), generator=generator).gather(1, words)
        is_target = (draws < self.rate) & ~self.is_special[batch.tokens] & (batch.sequences != NO_SEQUENCE)
        fate = torch.rand(shape, generator=generator)
        common = (~self.is_special).nonzero()[:, 0]
        others = common[torch.randint(len(common), shape, generator=generator)]
        shown = torch.where(fate < MASKED, self.mask_token, torch.where(fate < MASKED + REPLACED, others, batch.tokens))
        return batch._replace(
            tokens=torch.where(is_target, shown, batch.tokens),
            targets=torch.where(is_target, batch.tokens, IGNORED),
        )


def generator_of(seed: int, step: int) -> torch.Generator:
    """The draws of one step: a function of both, so that a resumed run draws what it would have drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
