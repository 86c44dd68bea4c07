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

CHUNK_STEPS = 64  # steps whose words are subsampled and whose negatives are drawn together
CENTRES = 16  # the fewest that share a matrix product and noise words
SHARED_NOISE = 16  # the fewest noise words of a group of centres; with fewer, each moves too far at once


class Block(NamedTuple):
    """Words in the order of the text, in groups of `size` centres, each with all places in any of their windows.

    Windows end where a document does: places of another document have no weight, and so have those of the padding.
    """

    centres: torch.Tensor  # [length] int64 words
    nearby: torch.Tensor  # [length + 2 * window] int64 words: the centres, and a window before and behind them
    weights: torch.Tensor  # [groups, size + 2 * window, size] of each place for each centre
    noise: torch.Tensor  # [groups, negatives] int64 words, drawn by frequency ** 0.75; negatives may be 0
    step: int
    epoch: int
    is_epoch_end: bool


class WordWindows(Sequence[Block]):
    """All steps' blocks of about `words` centres, each block a function of the seed and the step alone.

    The text is cut into chunks of equal length, visited in an order drawn for each epoch. A chunk's frequent words are
    thinned out afresh in each epoch, and what is left is dealt out evenly to its steps. Windows have a radius drawn
    from 1 to `window`, as in word2vec; unless `random_radius`, a place has the probability of being in as its weight.
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
        random_radius: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.corpus, self.window, self.seed, self.device = corpus, window, seed, device
        self.random_radius = random_radius
        frequencies = corpus.vocabulary.counts / corpus.vocabulary.counts.sum()
        self._kept = kept_shares(frequencies, subsample)
        expected = max(1, round(float((self._kept * frequencies).sum()) * len(corpus.tokens)))
        self.word_shares = self._kept * frequencies / (self._kept * frequencies).sum()  # [words] of the centres
        self.noise_shares = frequencies**0.75 / (frequencies**0.75).sum()  # [words] of the negatives
        self._draw_noise = Draws(self.noise_shares)
        self.chunks = -(-expected // (CHUNK_STEPS * words))
        self.chunk_length = -(-len(corpus.tokens) // self.chunks)
        self.chunk_steps = -(-expected // (self.chunks * words))
        self.per_epoch = self.chunks * self.chunk_steps
        self.total = self.per_epoch * epochs
        self.centres = min(words, -(-expected // self.per_epoch))  # in a block, about
        self.size = CENTRES * -(-2 * window // CENTRES)
        self.negatives = 0 if negative is None else max(SHARED_NOISE, negative)
        self._distances = window_distances(self.size, window).to(device)
        self._is_other = (self._distances > 0).float()
        self._chance = (window + 1 - self._distances).div(window).clamp(min=0) * self._is_other
        self._order = lru_cache(maxsize=1)(self._draw_order)
        self._chunk = lru_cache(maxsize=1)(self._draw_chunk)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.total:
            raise IndexError(index)
        epoch, place = divmod(index, self.per_epoch)
        chunk, part = divmod(place, self.chunk_steps)
        drawn = self._chunk(epoch, self._order(epoch)[chunk])
        length = drawn.noise.shape[1] * self.size
        start, stop = part * length, (part + 1) * length
        around = stop + 2 * self.window
        return Block(
            centres=drawn.words[start + self.window : stop + self.window],
            nearby=drawn.words[start:around],
            weights=self._weights(drawn.owners[start:around], drawn.centre_owners[start:stop], drawn.radii[start:stop]),
            noise=drawn.noise[part],
            step=index,
            epoch=epoch,
            is_epoch_end=place == self.per_epoch - 1,
        )

    def _weights(self, owners: torch.Tensor, centre_owners: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
        places = windows(owners[:, None], size=self.size, window=self.window)
        weights = places.expand(-1, -1, self.size).clone().eq_(centre_owners.view(-1, 1, self.size))
        if not self.random_radius:
            return weights.mul_(self._chance)
        near = self._distances.expand_as(weights).clone().le_(radii.view(-1, 1, self.size))
        return weights.mul_(near).mul_(self._is_other)

    def _draw_order(self, epoch: int) -> list[int]:
        return torch.randperm(self.chunks, generator=self._generator(epoch)).tolist()

    def _draw_chunk(self, epoch: int, chunk: int) -> _Chunk:
        generator = self._generator(epoch, chunk + 1)
        here = slice(chunk * self.chunk_length, (chunk + 1) * self.chunk_length)
        words, owners = self.corpus.tokens[here], self.corpus.documents[here]
        chosen = torch.rand(len(words), generator=generator) < self._kept[words]
        words, owners = words[chosen].long(), (owners[chosen] - owners[:1]).float()
        groups = max(1, -(-len(words) // (self.chunk_steps * self.size)))
        length = self.chunk_steps * groups * self.size
        missing = length - len(words)
        noise = self._draw_noise((self.chunk_steps, groups, self.negatives), generator)
        radii = torch.randint(1, self.window + 1, (length if self.random_radius else 0,), generator=generator)
        return _Chunk(
            words=pad(words, (self.window, self.window + missing)).to(self.device),
            owners=pad(owners, (self.window, self.window + missing), value=-1).to(self.device),
            centre_owners=pad(owners, (0, missing), value=-2).to(self.device),
            noise=noise.to(self.device),
            radii=radii.float().to(self.device),
        )

    def _generator(self, *place: int) -> torch.Generator:
        state = np.random.SeedSequence([self.seed, *place]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class _Chunk(NamedTuple):
    words: torch.Tensor  # [window + length + window]
    owners: torch.Tensor  # [window + length + window] the document each stands in; -1 in the padding
    centre_owners: torch.Tensor  # [length]; -2 in the padding
    noise: torch.Tensor  # [steps, groups, negatives]
    radii: torch.Tensor  # [length], or empty


def kept_shares(frequencies: torch.Tensor, subsample: float | None) -> torch.Tensor:
    """The probability that an occurrence of each word is kept, as word2vec's code has it."""
    if subsample is None:
        return torch.ones_like(frequencies)
    return ((subsample / frequencies).sqrt() + subsample / frequencies).clamp(max=1)


def window_distances(size: int, window: int) -> torch.Tensor:
    """How far each place of a group lies from each of its centres, [size + 2 * window, size]."""
    return (torch.arange(size + 2 * window)[:, None] - window - torch.arange(size)).abs().float()


def windows(rows: torch.Tensor, *, size: int, window: int) -> torch.Tensor:
    """Overlapping views of `rows` [length + 2 * window, n]: [length / size, size + 2 * window, n]."""
    width = rows.shape[1]
    groups = (len(rows) - 2 * window) // size
    return rows.as_strided((groups, size + 2 * window, width), (size * width, width, 1))


def sum_windows(parts: torch.Tensor, *, window: int, out: torch.Tensor) -> None:
    """The opposite of `windows`: writes to `out` the sums of the parts [groups, size + 2 * window, n] of the same row.

    Needs 2 * window <= size.
    """
    groups, places, width = parts.shape
    size = places - 2 * window
    length = groups * size
    out[:length].view(groups, size, width).copy_(parts[:, :size])
    out[length:] = 0
    out[size:].as_strided((groups, 2 * window, width), (size * width, width, 1)).add_(parts[:, size:])


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
