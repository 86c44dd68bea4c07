"""Tokens are hidden as often as asked, in the shares of BERT, whole words together, special tokens never."""

from __future__ import annotations

import pytest
import torch

from core.data.masking import Masking, generator_of
from core.data.packing import IGNORED, NO_SEQUENCE, PackedBatch

MASK, VOCABULARY = 4, 1000


@pytest.fixture
def masking() -> Masking:
    is_special = torch.arange(VOCABULARY) < 5
    return Masking(rate=0.2, mask_token=MASK, is_special=is_special)


@pytest.fixture
def batch() -> PackedBatch:
    tokens = torch.randint(5, VOCABULARY, (200, 100), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 2
    sequences = torch.zeros_like(tokens)
    sequences[:, 90:] = NO_SEQUENCE
    return PackedBatch(tokens, tokens, torch.zeros_like(tokens), sequences)


def test_hides_a_fifth_of_the_words_and_nothing_else(masking: Masking, batch: PackedBatch) -> None:
    hidden = masking.masked(batch, generator=generator_of(0, 7))
    is_target = hidden.targets != IGNORED
    assert float(is_target[:, 1:90].float().mean()) == pytest.approx(0.2, abs=0.01)
    assert not is_target[:, 0].any()
    assert not is_target[:, 90:].any()
    assert torch.equal(hidden.targets[is_target], batch.tokens[is_target])
    assert torch.equal(hidden.tokens[~is_target], batch.tokens[~is_target])
    shown, true = hidden.tokens[is_target], batch.tokens[is_target]
    assert float((shown == MASK).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((shown == true).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert int(shown.min()) == MASK


def test_the_draws_are_a_function_of_seed_and_step(masking: Masking, batch: PackedBatch) -> None:
    first, again, later = (masking.masked(batch, generator=generator_of(0, step)).tokens for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_words_are_hidden_whole(masking: Masking, batch: PackedBatch) -> None:
    words = (torch.arange(100) // 3).expand(200, -1)
    is_target = masking.masked(batch, words=words, generator=generator_of(0, 0)).targets != IGNORED
    for word in range(1, 29):
        parts = is_target[:, 3 * word : 3 * word + 3]
        assert torch.equal(parts.any(1), parts.all(1))
    assert float(is_target[:, 3:87].float().mean()) == pytest.approx(0.2, abs=0.02)
