"""A binary tree over words in which frequent words lie near the root: what hierarchical softmax walks down."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class HuffmanTree(NamedTuple):
    """Each word's path, from its leaf up to the root; a tree of n words has n - 1 inner nodes, the root the last."""

    nodes: torch.Tensor  # [words, depth] int64 inner nodes; 0 beyond the root
    signs: torch.Tensor  # [words, depth] 1 where the path leaves the node by its first branch, -1 by its second, else 0

    @property
    def depth(self) -> int:
        """Nodes on the longest path."""
        return self.nodes.shape[1]


def huffman_tree(counts: torch.Tensor) -> HuffmanTree:
    """The tree of the least mean path for words of falling counts [words], two at least (Huffman 1952)."""
    parents, is_second = _merge(counts.tolist())
    places = np.arange(len(counts))
    nodes, signs = [], []
    root = len(parents) - 1
    while np.any(places != root):
        is_below = places != root
        nodes.append(np.where(is_below, parents[places] - len(counts), 0))
        signs.append(np.where(is_below, 1.0 - 2.0 * is_second[places], 0.0))
        places = np.where(is_below, parents[places], root)
    return HuffmanTree(torch.from_numpy(np.stack(nodes, 1)), torch.from_numpy(np.stack(signs, 1)).float())


def _merge(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The parent of each leaf (first) and inner node, and whether it is the second child; the root is its own parent.

    Inner nodes are made by rising count, so that the two rarest of all are always the next leaf or the next inner node.
    """
    words = len(counts)
    totals = np.concatenate([np.array(counts, dtype=np.int64), np.zeros(words - 1, dtype=np.int64)]).tolist()
    parents = list(range(2 * words - 1))
    is_second = [False] * (2 * words - 1)
    leaf, inner = words - 1, words
    for made in range(words, 2 * words - 1):
        for second in (False, True):
            if leaf >= 0 and (inner >= made or totals[leaf] <= totals[inner]):
                child, leaf = leaf, leaf - 1
            else:
                child, inner = inner, inner + 1
            parents[child], is_second[child] = made, second
            totals[made] += totals[child]
    return np.array(parents), np.array(is_second)
