"""Counts the examples that are validated on and learned from at once, which makes a validation say too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

BLOCK_BYTES = 2**24


def count_shared(training: torch.Tensor | Sequence[Any], validation: torch.Tensor | Sequence[Any]) -> int:
    """How many validation examples are exactly among the training examples: the same text, pixels, numbers or waves."""
    if isinstance(training, torch.Tensor) and isinstance(validation, torch.Tensor):
        return int(np.isin(_hashes(validation), _hashes(training)).sum())
    known = set(map(_hash, training))
    return sum(_hash(example) in known for example in validation)


def _hash(example: Any) -> int:
    return hash(example if isinstance(example, str) else np.asarray(example).tobytes())


def _hashes(examples: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A number of 64 bits an example: the sum of its bytes, each times a random odd number, modulo 2 ** 64.

    Two different examples have the same number once in 2 ** 56 or so.
    """
    rows = examples.reshape(len(examples), -1).contiguous().numpy()
    content = rows.view(np.uint8)
    factors = np.random.default_rng(0).integers(0, 2**63, content.shape[1], dtype=np.uint64) * 2 + 1
    block = max(1, BLOCK_BYTES // max(1, content.shape[1]))
    parts = [content[start : start + block].astype(np.uint64) @ factors for start in range(0, len(content), block)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)
