"""LARS: momentum whose step in each layer is a fraction of that layer's weights, for large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman & Ginsburg 2017), as SimCLR uses it.

    For a weight w with gradient g: v = momentum * v + lr * trust * (g + weight_decay * w), w = w - v, where trust is
    `coefficient` * |w| / |g + weight_decay * w|. Biases and the weights of normalisations, which have one dimension,
    are left out of trust and decay.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        coefficient: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "coefficient": coefficient}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """One step down the gradients that are there."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_of(weight, group)

    def _step_of(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        gradient = weight.grad
        assert gradient is not None  # noqa: S101 - step asks
        if weight.dim() > 1:
            gradient = gradient + group["weight_decay"] * weight
            size, slope = weight.norm(), gradient.norm()
            trust = group["coefficient"] * size / slope
            gradient = gradient * torch.where((size > 0) & (slope > 0), trust, 1.0)
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        state["velocity"].mul_(group["momentum"]).add_(gradient, alpha=group["lr"])
        weight.sub_(state["velocity"])
