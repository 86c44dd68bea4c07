"""Mean 0 and variance 1 for what a network takes, by numbers that lie in its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

BLOCK_BYTES = 2 * 2**20  # of float64, which stay in a core's own cache


class Standardization(nn.Module):
    """(x - mean) / std, for each column of a table, or each channel of images with pixels in [0, 1]."""

    mean: torch.Tensor  # [features] or [channels, 1, 1]
    std: torch.Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        per = (shape[0], *[1] * (len(shape) - 1))
        self.register_buffer("mean", torch.zeros(per))
        self.register_buffer("std", torch.ones(per))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised `x` [rows, *shape]."""
        return (x - self.mean) / self.std

    def fit(self, examples: torch.Tensor) -> None:
        """Take mean and standard deviation from `examples` [rows, *shape]; uint8 pixels count as fractions of 255."""
        mean, std = moments(examples)
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(std.view_as(self.std))


def moments(examples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each column or channel, in flat memory; what does not vary has deviation 1."""
    scale = 255.0 if examples.dtype == torch.uint8 else 1.0
    rows = max(1, BLOCK_BYTES // (8 * max(1, examples[0].numel())))
    axes = [axis for axis in range(examples.dim()) if axis != 1]
    mean = torch.zeros(examples.shape[1], dtype=torch.float64)
    for block in examples.split(rows):
        mean += (block.double() / scale).mean(axes) * (len(block) / len(examples))
    variance = torch.zeros_like(mean)
    centre = mean.view(-1, *[1] * (examples.dim() - 2))
    for block in examples.split(rows):
        variance += (block.double() / scale - centre).square().mean(axes) * (len(block) / len(examples))
    std = variance.sqrt()
    return mean, torch.where(std > 1e-9 * mean.abs().clamp(min=1e-9), std, 1.0)
