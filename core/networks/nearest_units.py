"""The two units nearest to each row: a product of rows and units in blocks, looked through while in the cache."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

CACHE_BYTES = 2**20  # of scores, which stay in a core's own cache
DEVICE_BYTES = 2**28
FEWEST_ROWS = 64


class Nearest(NamedTuple):
    """The two units nearest to each row, and about how far the first is, from a product of rows and units."""

    first: torch.Tensor  # [rows] int64
    second: torch.Tensor
    distance: torch.Tensor  # [rows]


def with_one(x: torch.Tensor) -> torch.Tensor:
    """Rows with a one at their end: in products it takes up a bias, in sums it counts them."""
    return functional.pad(x, (0, 1), value=1.0)


def exact_distance(x: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """The length of each row's difference to its unit; a product of rows and units would lose short ones."""
    distances: torch.Tensor = torch.linalg.vector_norm(x - units, dim=1)
    return distances


def nearest_two(x: torch.Tensor, units: torch.Tensor) -> Nearest:
    """The two nearest of `units` [units, features] for rows that end in a one, `x` [rows, features + 1].

    |x - w|² = |x|² - 2 (x w - |w|² / 2), so that the nearest unit has the highest score x w - |w|² / 2.
    """
    weights = torch.cat([units.T, -units.square().sum(1)[None] / 2])
    first, second = (torch.empty(len(x), dtype=torch.int64, device=x.device) for _ in range(2))
    best = torch.empty(len(x), device=x.device)
    search = _search_in_cache if x.device.type == "cpu" else _search_on_device
    search(x, weights, first, second, best)
    square = torch.linalg.vector_norm(x[:, :-1], dim=1).square()
    return Nearest(first, second, (square - 2 * best).clamp(min=0).sqrt())


def _search_in_cache(
    x: torch.Tensor, weights: torch.Tensor, first: torch.Tensor, second: torch.Tensor, best: torch.Tensor
) -> None:
    size = max(FEWEST_ROWS, CACHE_BYTES // (4 * weights.shape[1]))
    room = torch.empty(min(size, len(x)), weights.shape[1])
    for block, winners, others, scores in zip(*(part.split(size) for part in (x, first, second, best)), strict=True):
        # NumPy finds the place of the highest value with vector instructions, PyTorch one by one.
        found = torch.mm(block, weights, out=room[: len(block)]).numpy()
        found.argmax(1, out=winners.numpy())
        scores.copy_(room[: len(block)].gather(1, winners[:, None])[:, 0])
        room[: len(block)].scatter_(1, winners[:, None], float("-inf"))
        found.argmax(1, out=others.numpy())


def _search_on_device(
    x: torch.Tensor, weights: torch.Tensor, first: torch.Tensor, second: torch.Tensor, best: torch.Tensor
) -> None:
    size = max(FEWEST_ROWS, DEVICE_BYTES // (4 * weights.shape[1]))
    for block, winners, others, scores in zip(*(part.split(size) for part in (x, first, second, best)), strict=True):
        values, numbers = torch.mm(block, weights).topk(2, dim=1)
        scores.copy_(values[:, 0])
        winners.copy_(numbers[:, 0])
        others.copy_(numbers[:, 1])
