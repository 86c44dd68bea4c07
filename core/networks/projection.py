"""Linear projections learned from data: principal components."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from core.networks.saving import network


@network("pca")
class PrincipalComponents(nn.Module):
    """Projects rows on their principal components, and back.

    `shape`: (channels, height, width) where the rows are images with pixels in [0, 1]; these may come flattened or not.
    `whiten`: codes have unit variance. Components are rows, of unit length, ordered by the variance they explain.
    """

    mean: torch.Tensor  # [features]
    components: torch.Tensor  # [n_components, features]
    explained_variance: torch.Tensor  # [n_components]
    explained_variance_ratio: torch.Tensor  # [n_components]

    def __init__(
        self, features: int, n_components: int, *, whiten: bool = False, shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.config = {
            "features": features,
            "n_components": n_components,
            "whiten": whiten,
            "shape": list(shape) if shape else None,
        }
        self.whiten = whiten
        self.shape = tuple(shape) if shape else None
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("components", torch.zeros(n_components, features))
        self.register_buffer("explained_variance", torch.ones(n_components))
        self.register_buffer("explained_variance_ratio", torch.zeros(n_components))

    @property
    def projection(self) -> torch.Tensor:
        """What centred rows are multiplied by, [features, n_components]."""
        return self.components.T / self.explained_variance.sqrt() if self.whiten else self.components.T

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Codes [rows, n_components] of `x` [rows, features] or [rows, channels, height, width]."""
        return (x.flatten(1) - self.mean) @ self.projection

    def inverse(self, codes: torch.Tensor) -> torch.Tensor:
        """The rows that have these codes, as near as the components allow; images where the rows were images."""
        scale = self.explained_variance.sqrt() if self.whiten else 1.0
        x = (codes * scale) @ self.components + self.mean
        return x.unflatten(1, self.shape) if self.shape else x
