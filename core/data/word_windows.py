"""Words and their neighbours in blocks that fit matrix products: what each step of word2vec learns from."""

from __future__ import annotations

from collections.abc import Sequence
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


class Block(NamedTuple):
    """Words in the order of the text, in groups of `size` centres, each with all places in any of their windows.

    Windows end where a document does: places of another document have no weight, and so have those of the padding.
    In skip-gram a group predicts what is nearby, in CBOW its centres; both against noise words that it shares.
    """

    centres: torch.Tensor  # [groups, size] int64 words
    nearby: torch.Tensor  # [groups, places] int64 words: the centres, and a window before and behind them
    weights: torch.Tensor  # [groups, places, size] of each place for each centre
    counts: torch.Tensor  # [groups, size] each centre's weights together
    predicted: torch.Tensor  # [groups, true words + negatives] int64 words; noise is drawn by frequency ** 0.75
    pulls: torch.Tensor  # [groups, true words + negatives, size] the weight of each for each centre, below 0 for noise
    negatives: int  # may be 0
    step: int
    epoch: int
    is_epoch_end: bool

    @property
    def noise(self) -> torch.Tensor:
        """The noise words, [groups, negatives] int64."""
        return self.predicted[:, self.predicted.shape[1] - self.negatives :]


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
        own = (torch.eye(self.size), torch.full((self.negatives, self.size), -self._noise_share))
        self._own_pulls = torch.cat(own).to(device)  # of CBOW, where a word's mean predicts the word alone
        self._order = lru_cache(maxsize=1)(self._draw_order)
        self._chunk = lru_cache(maxsize=1)(self._draw_chunk)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.total:
            raise IndexError(index)
        epoch, place = divmod(index, self.per_epoch)
        chunk, part = divmod(place, self.chunk_steps)
        centres, nearby, weights, counts, predicted, pulls = self._chunk(epoch, self._order(epoch)[chunk])[part]
        return Block(
            centres=centres,
            nearby=nearby,
            weights=weights,
            counts=counts,
            predicted=predicted,
            pulls=pulls,
            negatives=self.negatives,
            step=index,
            epoch=epoch,
            is_epoch_end=place == self.per_epoch - 1,
        )

    def _draw_order(self, epoch: int) -> list[int]:
        return torch.randperm(self.chunks, generator=self._generator(epoch)).tolist()

    def _draw_chunk(self, epoch: int, chunk: int) -> list[tuple[torch.Tensor, ...]]:
        """The first six fields of each step's block."""
        generator = self._generator(epoch, chunk + 1)
        here = slice(chunk * self.chunk_length, (chunk + 1) * self.chunk_length)
        words, owners = self.corpus.tokens[here], self.corpus.documents[here]
        chosen = (torch.rand(len(words), generator=generator) < self._kept[words]).nonzero().view(-1)
        words, owners = words.index_select(0, chosen).long(), owners.index_select(0, chosen)
        groups = max(1, -(-len(words) // (self.chunk_steps * self.size)))
        missing = self.chunk_steps * groups * self.size - len(words)
        padded = pad(words, (self.window, self.window + missing))
        centres = padded[self.window : len(padded) - self.window].view(-1, self.size)
        nearby = padded.unfold(0, self._places, self.size)
        noise = self._draw_noise((len(centres), self.negatives), generator)
        predicted = torch.cat((centres if self.is_cbow else nearby, noise), 1)
        radii = torch.tensor(self.window)
        if self.is_cbow:
            radii = torch.randint(1, self.window + 1, (len(words),), generator=generator)
        before, behind = reaches(owners, radii)
        counts, weights, pulls = self._weigh(pad(before * (self.window + 1) + behind, (0, missing)))
        parts = (part.to(self.device) for part in (centres, nearby.contiguous(), weights, counts, predicted, pulls))
        return list(zip(*(part.split(groups) for part in parts), strict=True))

    def _weigh(self, bands: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The counts, weights and pulls of groups, from the row of each centre in the bands, [centres]."""
        width = 2 * self.window + 1
        counts = self._bands.sum(1)[bands].view(-1, self.size)
        pulls = torch.zeros(len(counts), self._places + (0 if self.is_cbow else self.negatives), self.size)
        diagonal = pulls.as_strided((len(counts), self.size, width), (pulls.stride(0), self.size + 1, self.size))
        diagonal.copy_(self._bands.index_select(0, bands).view(diagonal.shape))
        if self.is_cbow:
            return counts, pulls, self._own_pulls.expand(len(counts), -1, -1)
        pulls[:, self._places :] = (counts * -self._noise_share)[:, None]
        return counts, pulls[:, : self._places], pulls

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
