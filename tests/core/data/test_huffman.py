from __future__ import annotations

import heapq

import numpy as np
import pytest
import torch

from core.data.huffman import huffman_tree


def least_total(counts: list[int]) -> int:
    """What the best tree's paths add up to: each merge costs the counts below it."""
    heap, total = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@pytest.mark.parametrize("counts", [[1, 1], [9, 1], [5, 5, 5, 5, 5], [100, 50, 3, 2, 1, 1], list(range(300, 0, -1))])
def test_paths_are_as_short_as_can_be(counts):
    tree = huffman_tree(torch.tensor(counts))
    lengths = tree.signs.abs().sum(1)
    assert int((lengths * torch.tensor(counts)).sum()) == least_total(counts)
    assert lengths.max() == tree.depth


def test_the_turns_lead_to_one_word_alone():
    random = np.random.default_rng(0)
    counts = torch.from_numpy(np.sort(random.zipf(1.5, 200).clip(max=10**6))[::-1].copy())
    tree = huffman_tree(counts)
    paths = (tree.nodes.tolist(), tree.signs.tolist())
    turns = {tuple((n, s) for n, s in zip(*path, strict=True) if s) for path in zip(*paths, strict=True)}
    assert len(turns) == 200
    # At every inner node a share and the rest: the probabilities of all words add up to one.
    share = torch.from_numpy(random.uniform(size=199))
    factors = torch.where(tree.signs > 0, share[tree.nodes], torch.where(tree.signs < 0, 1 - share[tree.nodes], 1.0))
    assert float(factors.prod(1).sum()) == pytest.approx(1)
