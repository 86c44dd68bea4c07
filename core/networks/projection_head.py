"""The head that a contrastive loss is taken behind."""

from __future__ import annotations

import torch
from torch import nn

from core.networks.saving import network


@network("projection-head")
class ProjectionHead(nn.Module):
    """Two dense layers with batch normalisation and ReLU between them (Chen et al. 2020, section 4.2)."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.config = {"features": features, "hidden": hidden, "outputs": outputs}
        self.layers = nn.Sequential(
            nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Projections [rows, outputs] of features [rows, features]."""
        projected: torch.Tensor = self.layers(x)
        return projected
