"""What tells two domains apart by their features, and lets these features learn to be of either."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient is turned around and scaled."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, strength: float) -> torch.Tensor:
        context.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -context.strength * gradients[0], None


def reversed_gradient(x: torch.Tensor, *, strength: float) -> torch.Tensor:
    """`x` as it is; its gradient is multiplied by minus `strength` (Ganin & Lempitsky 2015, section 3)."""
    passed: torch.Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return passed


def new_discriminator(width: int, *, hidden_size: int) -> nn.Sequential:
    """Features [rows, width] to a logit [rows, 1], which is high for the source."""
    return nn.Sequential(nn.Linear(width, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 1))
