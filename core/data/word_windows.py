"""Words and their neighbours in blocks that fit matrix products: what each step of word2vec learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad

from core.data.vocabulary import Corpus

CHUNK = 32_768  # centres that are subsampled, and whose windows and noise are laid out, together
CENTRES = 16  # the fewest that share a matrix product and noise words
SHARED_NOISE = 16  # the fewest noise words of a group of centres; with fewer, each moves too far at once
SHARED_NOISE_CBOW = 8  # the same where each centre predicts but one word


class Bags(NamedTuple):
    """Lists of numbers, one after the other, as `embedding_bag` takes them."""

    members: torch.Tensor  # [members of all bags] int32
    starts: torch.Tensor  # [bags] int32, where each bag's begin

    @classmethod
    def split(cls, members: torch.Tensor, lengths: torch.Tensor, device: torch.device | None) -> list[Bags]:
        """For each step, from the members of all and their number in each bag, [steps, bags]."""
        starts = (lengths.cumsum(1, dtype=torch.int32) - lengths).to(device)
        parts = members.to(device).split(lengths.sum(1).tolist())
        return [cls(part, start) for part, start in zip(parts, starts, strict=True)]


NO_WEIGHTS = torch.empty(0)
NO_BAGS = Bags(torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.int32))


class Block(NamedTuple):
    """Words in the order of the text, in groups of `size` centres that share noise words.

    Windows end where a document does: places of another document are in none, and so are those of the padding.
    In skip-gram a group predicts what is nearby, each place by its weight; in CBOW what is nearby predicts the centres.
    Skip-gram has a row of places for each group, and no bags; CBOW one for all groups, and no weights or pulls.
    """

    centres: torch.Tensor  # [groups, size] int64 words
    nearby: torch.Tensor  # [groups or 1, places] int64 words: the centres, and a window before and behind them
    counts: torch.Tensor  # [groups, size] each centre's weights together, or the places in its window
    noise: torch.Tensor  # [groups, negatives] int64 words, drawn by frequency ** 0.75; there may be none
    predicted: torch.Tensor  # int64 true words and noise, [groups, places + negatives] or [all centres + all noise]
    weights: torch.Tensor  # [groups, places, size] of each place for each centre
    pulls: torch.Tensor  # [groups, places + negatives, size] the weight of each for each centre, below 0 for noise
    near: Bags  # the words in each centre's window
    near_to: Bags  # the centres in whose window each place is
    step: int
    epoch: int
    is_epoch_end: bool


class WordWindows(Sequence[Block]):
    """All steps' blocks of about `words` centres, each block a function of the seed and the step alone.

    The text is cut into chunks of equal length, visited in an order drawn for each epoch. A chunk's frequent words are
    thinned out afresh in each epoch, and what is left is dealt out evenly to its steps. Windows have a radius drawn
    from 1 to `window`, as in word2vec; but in skip-gram a place has the probability of being in as its weight.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        window: int,
        negative: int | None,
        subsample: float | None,
        words: int,
        epochs: int,
        seed: int,
        is_cbow: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.corpus, self.window, self.seed, self.device = corpus, window, seed, device
        self.is_cbow = is_cbow
        frequencies = corpus.vocabulary.counts / corpus.vocabulary.counts.sum()
        self._kept = kept_shares(frequencies, subsample)
        expected = max(1, round(float((self._kept * frequencies).sum()) * len(corpus.tokens)))
        self.word_shares = self._kept * frequencies / (self._kept * frequencies).sum()  # [words] of the centres
        self.noise_shares = frequencies**0.75 / (frequencies**0.75).sum()  # [words] of the negatives
        self._draw_noise = Draws(self.noise_shares)
        self.chunks = -(-expected // max(CHUNK, words))
        self.chunk_length = -(-len(corpus.tokens) // self.chunks)
        self.chunk_steps = -(-expected // (self.chunks * words))
        self.per_epoch = self.chunks * self.chunk_steps
        self.total = self.per_epoch * epochs
        self.centres = min(words, -(-expected // self.per_epoch))  # in a block, about
        self.size = CENTRES * -(-2 * window // CENTRES)
        self.negatives = 0 if negative is None else max(SHARED_NOISE_CBOW if is_cbow else SHARED_NOISE, negative)
        self._bands = window_bands(window, is_weighed=not is_cbow)
        self._places = self.size + 2 * window
        self._noise_share = (negative or 0) / max(1, self.negatives)  # of a prediction, for each noise word
        self._order = lru_cache(maxsize=1)(self._draw_order)
        self._chunk = lru_cache(maxsize=1)(self._draw_chunk)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.total:
            raise IndexError(index)
        epoch, place = divmod(index, self.per_epoch)
        chunk, part = divmod(place, self.chunk_steps)
        is_last = place == self.per_epoch - 1
        return self._chunk(epoch, self._order(epoch)[chunk])[part]._replace(
            step=index, epoch=epoch, is_epoch_end=is_last
        )

    def _draw_order(self, epoch: int) -> list[int]:
        return torch.randperm(self.chunks, generator=self._generator(epoch)).tolist()

    def _draw_chunk(self, epoch: int, chunk: int) -> list[Block]:
        """Each step's block, but for its place."""
        generator = self._generator(epoch, chunk + 1)
        here = slice(chunk * self.chunk_length, (chunk + 1) * self.chunk_length)
        words, owners = self.corpus.tokens[here], self.corpus.documents[here]
        is_kept = torch.rand(len(words), generator=generator) < self._kept[words]
        chosen = torch.from_numpy(np.flatnonzero(is_kept.numpy()))  # ten times as fast as nonzero
        words, owners = words.index_select(0, chosen).long(), owners.index_select(0, chosen)
        groups = max(1, -(-len(words) // (self.chunk_steps * self.size)))
        missing = self.chunk_steps * groups * self.size - len(words)
        padded = pad(words, (self.window, self.window + missing))
        centres = padded[self.window : len(padded) - self.window].view(-1, self.size)
        noise = self._draw_noise((len(centres), self.negatives), generator)
        radii = torch.tensor(self.window)
        if self.is_cbow:
            radii = torch.randint(1, self.window + 1, (len(words),), generator=generator)
        before, behind = reaches(owners, radii)
        bands = pad(before * (self.window + 1) + behind, (0, missing))
        lay_out = self._cbow_fields if self.is_cbow else self._skip_gram_fields
        counts = self._bands.sum(1).index_select(0, bands).view(-1, self.size)
        fields = zip(*(part.to(self.device).split(groups) for part in (centres, counts, noise)), strict=True)
        return [
            Block(centres=own, counts=sums, noise=drawn, step=0, epoch=0, is_epoch_end=False, **rest)
            for (own, sums, drawn), rest in zip(fields, lay_out(padded, noise, bands, counts), strict=True)
        ]

    def _skip_gram_fields(
        self, padded: torch.Tensor, noise: torch.Tensor, bands: torch.Tensor, counts: torch.Tensor
    ) -> Iterator[dict[str, Any]]:
        """What skip-gram's blocks have beside; `bands` [centres] are rows of the bands."""
        nearby = padded.unfold(0, self._places, self.size)
        pulls = torch.zeros(len(nearby), self._places + self.negatives, self.size)
        shape = (len(nearby), self.size, self._bands.shape[1])
        diagonal = pulls.as_strided(shape, (pulls.stride(0), self.size + 1, self.size))
        diagonal.copy_(self._bands.index_select(0, bands).view(shape))
        pulls[:, self._places :] = (counts * -self._noise_share)[:, None]
        parts = (nearby.contiguous(), torch.cat((nearby, noise), 1), pulls[:, : self._places], pulls)
        groups = len(nearby) // self.chunk_steps
        for split in zip(*(part.to(self.device).split(groups) for part in parts), strict=True):
            yield {
                **dict(zip(("nearby", "predicted", "weights", "pulls"), split, strict=True)),
                "near": NO_BAGS,
                "near_to": NO_BAGS,
            }

    def _cbow_fields(
        self, padded: torch.Tensor, noise: torch.Tensor, bands: torch.Tensor, counts: torch.Tensor
    ) -> Iterator[dict[str, Any]]:
        """The same of CBOW."""
        length = len(bands) // self.chunk_steps
        nearby = padded.unfold(0, length + 2 * self.window, length).contiguous()
        centres = padded[self.window : len(padded) - self.window].view(-1, length)
        predicted = torch.cat((centres, noise.view(len(centres), -1)), 1).to(self.device)
        is_near = self._bands.bool().index_select(0, bands).view(len(centres), length, -1).numpy()
        bags = window_bags(nearby, is_near, counts.view(len(centres), length).int(), self.device)
        for words, targets, near, near_to in zip(nearby.to(self.device), predicted, *bags, strict=True):
            moved = {"near": near, "near_to": near_to, "weights": NO_WEIGHTS, "pulls": NO_WEIGHTS}
            yield {"nearby": words[None], "predicted": targets, **moved}

    def _generator(self, *place: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, *place]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def kept_shares(frequencies: torch.Tensor, subsample: float | None) -> torch.Tensor:
    """The probability that an occurrence of each word is kept, as word2vec's code has it."""
    if subsample is None:
        return torch.ones_like(frequencies)
    return ((subsample / frequencies).sqrt() + subsample / frequencies).clamp(max=1)


def window_bands(window: int, *, is_weighed: bool) -> torch.Tensor:
    """Weights of the places from `window` before a centre to as many behind it, [(window + 1) ** 2, 2 * window + 1].

    Row `before * (window + 1) + behind` is of a centre whose window reaches so far: 1 for each place in it but the
    centre's own, or, if `is_weighed`, the probability that a radius drawn from 1 to `window` takes it in.
    """
    offsets = torch.arange(-window, window + 1)
    reach = torch.arange(window + 1)
    is_in = (offsets >= -reach[:, None, None]) & (offsets <= reach[None, :, None]) & (offsets != 0)
    chance = (window + 1 - offsets.abs()) / window if is_weighed else torch.ones(len(offsets))
    return (is_in * chance).view(-1, len(offsets))


def reaches(owners: torch.Tensor, radii: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many places each window has before and behind its centre, in the same document; `owners` [n] never fall."""
    places = torch.arange(len(owners))
    lengths = owners.unique_consecutive(return_counts=True)[1]
    ends = lengths.cumsum(0)
    before = places - (ends - lengths).repeat_interleave(lengths)
    behind = ends.repeat_interleave(lengths) - 1 - places
    return torch.minimum(before, radii), torch.minimum(behind, radii)


def window_bags(
    nearby: torch.Tensor, is_near: npt.NDArray[np.bool_], counts: torch.Tensor, device: torch.device | None
) -> tuple[list[Bags], list[Bags]]:
    """For each step the words in each centre's window, and the centres in whose window each place is.

    `nearby` [steps, places] words, from a window before the first centre; `is_near` [steps, centres, 2 * window + 1]
    tells which places around each centre are in its window, `counts` [steps, centres] how many.
    """
    steps, centres, width = is_near.shape
    padded = np.pad(is_near, ((0, 0), (width - 1, width - 1), (0, 0)))
    row, column = padded.strides[1:]
    shape = (steps, nearby.shape[1], width)  # place p is in the window of c at offset p - c
    turned = np.lib.stride_tricks.as_strided(padded[:, :, width - 1 :], shape, (padded.strides[0], row, row - column))
    places, owners = window_numbers(steps, centres, width)
    near, near_to = chosen_of(places, is_near), chosen_of(owners, turned)
    in_windows = torch.bincount(near, minlength=nearby.numel()).view_as(nearby)
    return (
        Bags.split(nearby.view(-1).int().index_select(0, near), counts, device),
        Bags.split(near_to, in_windows.int(), device),
    )


@lru_cache(maxsize=2)
def window_numbers(steps: int, centres: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The place at each offset from each centre, counted through all steps; the centre at each from each place."""
    offsets, places = torch.arange(width), centres + width - 1
    firsts = torch.arange(steps)[:, None, None] * places
    owners = torch.arange(1 - width, centres)[:, None] + offsets
    numbers = firsts + torch.arange(centres)[:, None] + offsets, owners.repeat(steps, 1)
    return numbers[0].int().view(-1), numbers[1].int().view(-1)  # so that more fits into the cache


def chosen_of(numbers: torch.Tensor, is_chosen: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Those of the numbers [n] that are chosen, [any shape of n]."""
    return numbers.index_select(0, torch.from_numpy(np.flatnonzero(is_chosen)))


class Draws:
    """Draws numbers by given shares in constant time, by Walker's alias method."""

    def __init__(self, shares: torch.Tensor) -> None:
        self.thresholds, self.aliases = alias_table(shares.double().numpy())

    def __call__(self, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Numbers drawn independently, int64."""
        columns = torch.randint(len(self.aliases), tuple(shape), generator=generator)
        flat = columns.view(-1)
        is_own = torch.rand(flat.shape, generator=generator) < self.thresholds.index_select(0, flat)
        return torch.where(is_own, flat, self.aliases.index_select(0, flat)).view(columns.shape)


def alias_table(shares: npt.NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each column the chance that it stands for itself, and what it stands for otherwise (Vose 1991)."""
    left = shares * (len(shares) / shares.sum())
    thresholds = np.ones(len(shares), dtype=np.float32)
    aliases = np.arange(len(shares))
    small, large = list(np.flatnonzero(left < 1)), list(np.flatnonzero(left >= 1))
    while small and large:
        poor, rich = small.pop(), large[-1]
        thresholds[poor], aliases[poor] = left[poor], rich
        left[rich] -= 1 - left[poor]
        if left[rich] < 1:
            small.append(large.pop())
    return torch.from_numpy(thresholds), torch.from_numpy(aliases)
