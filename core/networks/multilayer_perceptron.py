"""Fully connected classifiers of tables and small images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import nn

from core.networks.saving import network
from core.networks.standardization import Standardization


@network("mlp")
class MultilayerPerceptron(nn.Module):
    """Dense layers with ReLU and dropout: an `encoder` and a `head`.

    `shape`: (features,) for tables, (channels, height, width) for images with pixels in [0, 1]; both are standardised
    inside. `input_dropout` drops inputs, `dropout` hidden units.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        *,
        hidden_sizes: Sequence[int],
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = {
            "shape": list(shape),
            "classes": classes,
            "hidden_sizes": list(hidden_sizes),
            "dropout": dropout,
            "input_dropout": input_dropout,
        }
        self.shape = tuple(shape)
        self.standardization = Standardization(self.shape)
        widths = [prod(shape), *hidden_sizes]
        layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(dropout)]
        self.encoder = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)
        self.apply(_initialise)
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [rows, classes] of `x` [rows, *shape]."""
        logits: torch.Tensor = self.head(self.encoder(self.standardization(x)))
        return logits


def _initialise(layer: nn.Module) -> None:
    """He et al. 2015."""
    if isinstance(layer, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
