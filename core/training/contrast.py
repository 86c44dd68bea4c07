"""What representations of pairs of views are like on the sphere."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def other_view(count: int, device: torch.device) -> torch.Tensor:
    """The place of each view's partner: views of one image lie side by side."""
    return torch.arange(count, device=device) ^ 1


@torch.no_grad()
def measures(z: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `z` [n, 2, width] is like on the sphere, each 0-d.

    `contrastive_accuracy`: how often a view's nearest is the other view of its image. `alignment`: mean squared
    distance of the two; `uniformity`: log of the mean of exp(-2 squared distance) over images (Wang & Isola 2020).
    `spread`: deviation over images times the root of the width; 1 where they point everywhere, 0 where all are one.
    """
    z = functional.normalize(z.float(), dim=-1)
    flat = z.flatten(0, 1)
    nearest = (flat @ flat.T).fill_diagonal_(-math.inf).argmax(1)
    between = torch.cdist(z.movedim(1, 0), z.movedim(1, 0)).square()  # [2, n, n]
    images = len(z)
    others = ((-2 * between).exp().sum((1, 2)) - images) / max(1, images * (images - 1))
    return {
        "contrastive_accuracy": (nearest == other_view(len(flat), z.device)).float().mean(),
        "alignment": (z[:, 0] - z[:, 1]).square().sum(1).mean(),
        "uniformity": others.clamp(min=1e-30).log().mean(),
        "spread": flat.std(0, correction=0).mean() * math.sqrt(flat.shape[1]),
    }
