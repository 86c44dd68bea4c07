"""Token sequences laid side by side in rows of one length, so that no arithmetic is spent on padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

import torch

IGNORED = -100  # the target of a place where nothing is to be predicted
NO_SEQUENCE = -1  # the sequence of a place that is padding
SEQUENCES_AT_ONCE = 2**14  # whose places are held at once
TOKENS_AT_ONCE = 2**12  # that a network reads where no gradient is kept


class PackedBatch(NamedTuple):
    """Rows of sequences, each [rows, longest] int64; `core.training.parts` cuts it by rows."""

    tokens: torch.Tensor
    targets: torch.Tensor  # the token to predict at each place, or IGNORED
    positions: torch.Tensor  # from 0 in each sequence, and wherever a row begins; 0 for padding
    sequences: torch.Tensor  # the number of the sequence that a token is of, or NO_SEQUENCE


class PackedRows:
    """Sequences in rows; indexed by rows, it gives a PackedBatch, whose targets are the next tokens of a sequence.

    A sequence goes on in the next row where `starts` say so: the token it begins there with is still a target, of the
    row before. Made by `pack_stream` or `pack_whole`.
    """

    def __init__(
        self,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        *,
        starts: torch.Tensor,
        pad_token: int,
        learned: torch.Tensor | None = None,
        begins_word: torch.Tensor | None = None,
    ) -> None:
        self.tokens = tokens  # [tokens of all sequences] int32, in the order of the rows
        self.ends = lengths.cumsum(0)  # [sequences] int64
        self.lengths = lengths  # [sequences] int64
        self.starts = starts  # [rows] int64, places in `tokens`
        self.sizes = torch.diff(starts, append=torch.tensor([len(tokens)]))  # [rows] int64
        self.pad_token = pad_token
        self.learned = learned  # [tokens of all sequences] bool: whether a token is a target; None: all are
        self.begins_word = begins_word  # [tokens of all sequences] bool

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def padding(self) -> float:
        """Part of all places that are padding, if each row is filled up to the longest."""
        return 1 - len(self.tokens) / (len(self) * int(self.sizes.max()))

    def __getitem__(self, rows: torch.Tensor) -> PackedBatch:
        """These rows, filled up with padding to the longest of them."""
        starts, sizes = self.starts[rows, None], self.sizes[rows, None]
        columns = torch.arange(int(sizes.max()))
        is_token = columns < sizes
        places = (starts + columns).clamp(max=len(self.tokens) - 1)
        sequences = torch.searchsorted(self.ends, places, right=True)
        first = torch.maximum(self.ends[sequences] - self.lengths[sequences], starts)
        return PackedBatch(
            tokens=torch.where(is_token, self.tokens[places].long(), self.pad_token),
            targets=self._next(places, self.ends[sequences], is_token),
            positions=torch.where(is_token, places - first, 0),
            sequences=torch.where(is_token, sequences, NO_SEQUENCE),
        )

    def words(self, rows: torch.Tensor) -> torch.Tensor | None:
        """The number of the word that each token is of, [rows, longest], if it was noted where words begin."""
        if self.begins_word is None:
            return None
        places = self.starts[rows, None] + torch.arange(int(self.sizes[rows].max()))
        return self.begins_word[places.clamp(max=len(self.tokens) - 1)].cumsum(1)

    def _next(self, places: torch.Tensor, ends: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        """The token that follows each place in its sequence, where it is to be learned."""
        following = (places + 1).clamp(max=len(self.tokens) - 1)
        is_target = is_token & (places + 1 < ends)
        if self.learned is not None:
            is_target &= self.learned[following]
        return torch.where(is_target, self.tokens[following].long(), IGNORED)


def pack_stream(
    tokens: torch.Tensor,
    lengths: Sequence[int],
    *,
    row_length: int,
    pad_token: int,
    learned: torch.Tensor | None = None,
) -> PackedRows:
    """All sequences one after another, cut wherever a row is full: only the last row may be shorter.

    `tokens` [tokens of all sequences] int32; `learned`, of the same shape, bool: which of them are to be predicted.
    """
    starts = torch.arange(0, len(tokens), row_length)
    return PackedRows(tokens, torch.tensor(lengths), starts=starts, pad_token=pad_token, learned=learned)


def pack_whole(
    tokens: torch.Tensor,
    lengths: Sequence[int],
    *,
    row_length: int,
    pad_token: int,
    learned: torch.Tensor | None = None,
    begins_word: torch.Tensor | None = None,
) -> PackedRows:
    """Whole sequences, as many a row as fit, longest first, each into the row that it leaves least space in.

    Arguments as of `pack_stream`, and whether a word begins at a token; a sequence longer than `row_length` has a row
    to itself. Best-fit decreasing (Johnson 1974) needs at most 11/9 of the fewest rows, and on texts of mixed lengths
    hardly any more.
    """
    bins = _best_fit(lengths, row_length)
    order = torch.tensor([sequence for members in bins for sequence in members])
    sizes = torch.tensor(lengths)
    starts = torch.tensor([sum(lengths[sequence] for sequence in members) for members in bins]).cumsum(0)
    return PackedRows(
        _reordered(tokens, sizes, order),
        sizes[order],
        starts=torch.cat((torch.zeros(1, dtype=torch.int64), starts[:-1])),
        pad_token=pad_token,
        learned=None if learned is None else _reordered(learned, sizes, order),
        begins_word=None if begins_word is None else _reordered(begins_word, sizes, order),
    )


def pack_singly(
    tokens: torch.Tensor, lengths: Sequence[int], *, pad_token: int, begins_word: torch.Tensor | None = None
) -> PackedRows:
    """Every sequence in a row of its own, for networks that cannot keep several apart."""
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    return PackedRows(tokens, sizes, starts=starts, pad_token=pad_token, begins_word=begins_word)


def few_rows(sizes: torch.Tensor, *, most: int) -> list[torch.Tensor]:
    """The numbers of all rows, `most` together, or as few as fill TOKENS_AT_ONCE when padded to the longest.

    `sizes` [rows] int64, of at least one row; a longer row is by itself.
    """
    found, start, longest = [], 0, 0
    for row, size in enumerate(sizes.tolist()):
        longest = max(longest, size)
        if row > start and (row - start == most or (row - start + 1) * longest > TOKENS_AT_ONCE):
            found.append(torch.arange(start, row))
            start, longest = row, size
    return [*found, torch.arange(start, len(sizes))]


def _best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """The numbers of the sequences in each row."""
    rows: list[list[int]] = []
    with_space: dict[int, list[int]] = {}  # rows by the space that is left in them
    spaces: list[int] = []  # the keys of `with_space`, sorted
    for sequence in sorted(range(len(lengths)), key=lambda sequence: (-lengths[sequence], sequence)):
        length = lengths[sequence]
        place = bisect_left(spaces, length)
        if place == len(spaces):
            row, space = len(rows), row_length
            rows.append([])
        else:
            space = spaces[place]
            row = with_space[space].pop()
            if not with_space[space]:
                del with_space[space], spaces[place]
        rows[row].append(sequence)
        if space - length not in with_space:
            insort(spaces, space - length)
        with_space.setdefault(space - length, []).append(row)
    return rows


def _reordered(values: torch.Tensor, lengths: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The values [tokens] of all sequences, the sequences taken in this order; the places are found block by block."""
    found = torch.empty_like(values)
    starts, sizes = (lengths.cumsum(0) - lengths)[order], lengths[order]
    done = 0
    for start, size in zip(starts.split(SEQUENCES_AT_ONCE), sizes.split(SEQUENCES_AT_ONCE), strict=True):
        count = int(size.sum())
        inside = torch.arange(count) - (size.cumsum(0) - size).repeat_interleave(size)
        found[done : done + count] = values[start.repeat_interleave(size) + inside]
        done += count
    return found
