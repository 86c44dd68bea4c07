"""Packed rows hold every token once, in its place, with the token that follows it as its target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.data import packing
from core.data.packing import IGNORED, NO_SEQUENCE, PackedRows, few_rows, pack_stream, pack_whole

PAD = 0


def sequences(count: int, *, longest: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(1, 1000, random.integers(1, longest + 1)).tolist() for _ in range(count)]


def flat(found: list[list[int]]) -> tuple[torch.Tensor, list[int]]:
    return torch.tensor([token for each in found for token in each], dtype=torch.int32), [len(each) for each in found]


def unpacked(rows: PackedRows) -> list[list[int]]:
    """The sequences, put together again from all rows, one token after another."""
    batch = rows[torch.arange(len(rows))]
    found: dict[int, list[int]] = {}
    for tokens, numbers in zip(batch.tokens.tolist(), batch.sequences.tolist(), strict=True):
        for token, number in zip(tokens, numbers, strict=True):
            if number != NO_SEQUENCE:
                found.setdefault(number, []).append(token)
    return list(found.values())


def test_a_stream_is_cut_only_where_a_row_is_full() -> None:
    given = sequences(50, longest=30)
    rows = pack_stream(*flat(given), row_length=16, pad_token=PAD)
    assert unpacked(rows) == given
    assert rows.sizes[:-1].tolist() == [16] * (len(rows) - 1)
    assert rows.padding < 1 / len(rows)


def test_every_token_but_the_first_of_a_sequence_is_a_target_once() -> None:
    given = sequences(50, longest=30)
    for rows in (
        pack_stream(*flat(given), row_length=16, pad_token=PAD),
        pack_whole(*flat(given), row_length=32, pad_token=PAD),
    ):
        targets = rows[torch.arange(len(rows))].targets
        assert sorted(targets[targets != IGNORED].tolist()) == sorted(token for each in given for token in each[1:])


def test_positions_and_targets_of_a_known_stream() -> None:
    rows = pack_stream(*flat([[11, 12, 13], [21, 22, 23, 24], [31]]), row_length=5, pad_token=PAD)
    batch = rows[torch.tensor([0, 1])]
    assert batch.tokens.tolist() == [[11, 12, 13, 21, 22], [23, 24, 31, PAD, PAD]]
    assert batch.targets.tolist() == [[12, 13, IGNORED, 22, 23], [24, IGNORED, IGNORED, IGNORED, IGNORED]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]]
    assert batch.sequences.tolist() == [[0, 0, 0, 1, 1], [1, 1, 2, NO_SEQUENCE, NO_SEQUENCE]]


def test_whole_sequences_stay_in_one_row_and_fill_it() -> None:
    given = sequences(400, longest=30)
    rows = pack_whole(*flat(given), row_length=64, pad_token=PAD)
    assert sorted(unpacked(rows)) == sorted(given)
    assert int(rows.sizes.max()) <= 64
    fewest = -(-sum(map(len, given)) // 64)
    assert len(rows) <= fewest + 1
    batch = rows[torch.arange(len(rows))]
    for number in batch.sequences.unique().tolist():
        assert number == NO_SEQUENCE or int((batch.sequences == number).any(1).sum()) == 1


def test_only_what_is_to_be_learned_is_a_target() -> None:
    tokens, lengths = flat([[1, 2, 3, 4], [5, 6, 7]])
    learned = torch.tensor([False, False, True, True, False, False, True])
    for pack in (pack_stream, pack_whole):
        targets = pack(tokens, lengths, row_length=8, pad_token=PAD, learned=learned)[torch.arange(1)].targets
        assert targets.tolist() == [[IGNORED, 3, 4, IGNORED, IGNORED, 7, IGNORED]]


def test_a_sequence_longer_than_a_row_is_not_cut_but_has_one_to_itself() -> None:
    given = [[1] * 5, list(range(2, 11)), [2] * 3]
    rows = pack_whole(*flat(given), row_length=8, pad_token=PAD)
    assert sorted(rows.sizes.tolist()) == [8, 9]
    assert sorted(unpacked(rows)) == sorted(given)


def test_rows_are_padded_only_to_the_longest_of_a_batch() -> None:
    rows = pack_whole(*flat([[1] * 7, [2] * 5, [3] * 4]), row_length=8, pad_token=PAD)
    assert rows[torch.tensor([1, 2])].tokens.shape == (2, 5)


def test_long_rows_are_read_fewer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = torch.tensor([2, 3, 2, 1, 9, 2, 6, 4, 30])
    monkeypatch.setattr(packing, "TOKENS_AT_ONCE", 12)
    found = few_rows(sizes, most=3)
    assert [rows.tolist() for rows in found] == [[0, 1, 2], [3], [4], [5, 6], [7], [8]]
