"""Texts become tokens without padding; long ones are cut into sequences, and none loses a token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.data import token_sequences
from core.data.token_sequences import TokenSequences, between, cut, gathered, tokenize
from core.networks.tokenizer_training import train_encoder_tokenizer

TEXTS = ["The whale swims.", "Unbelievable whales!", "So it swims, and swims."]


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return train_encoder_tokenizer(TEXTS * 5, kind="wordpiece", size=100, lowercase=True, max_length=8)


def test_tokens_are_those_of_the_tokenizer(tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(token_sequences, "DOCUMENTS_AT_ONCE", 2)
    found = gathered(tokenize(iter(TEXTS), tokenizer), folder=tmp_path)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert [part.tolist() for part in found.tokens.split(found.lengths)] == expected
    assert found.tokens.dtype == torch.int32
    assert found.begins_word is None
    assert not list(tmp_path.iterdir())


def test_nothing_is_gathered_of_nothing(tmp_path: Path) -> None:
    assert gathered([], folder=tmp_path).tokens.tolist() == []


def test_words_begin_where_no_piece_goes_on(tokenizer, tmp_path: Path) -> None:
    found = gathered(tokenize(TEXTS, tokenizer, with_words=True), folder=tmp_path)
    pieces = tokenizer.convert_ids_to_tokens(found.tokens.tolist())
    assert found.begins_word is not None
    assert found.begins_word.tolist() == [not piece.startswith("##") for piece in pieces]


def test_cut_and_bounded_sequences() -> None:
    given = TokenSequences(torch.arange(10, 19, dtype=torch.int32), [5, 4], torch.tensor([True, False, True] * 3))
    pieces = cut(given, longest=4)
    assert pieces.lengths == [4, 1, 4]
    found = between(pieces, first=1, last=2)
    assert [part.tolist() for part in found.tokens.split(found.lengths)] == [
        [1, 10, 11, 12, 13, 2],
        [1, 14, 2],
        [1, 15, 16, 17, 18, 2],
    ]
    assert found.begins_word is not None
    assert found.begins_word[:6].tolist() == [True, True, False, True, True, True]
    assert between(given, first=None, last=None).tokens.tolist() == given.tokens.tolist()
