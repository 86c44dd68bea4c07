"""Where a map's units are before they learn: on the plane of two principal components, or on examples."""

from __future__ import annotations

from math import pi, sqrt

import torch

from core.networks.map_grid import Grid

EXTENT = 2.0  # standard deviations from the middle of the map to its edge


def on_principal_components(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Units spread over the plane of the two largest components of `x` [rows, features], [units, features].

    The larger one goes along the grid's longer side. A toroidal grid is rolled into circles, of two components each.
    """
    circles = grid.is_toroidal
    mean = x.mean(0)
    wanted = 4 if circles else 2
    _, singular_values, components = torch.pca_lowrank(x, q=min(wanted + 4, *x.shape), niter=4)
    axes = (components * (singular_values / sqrt(len(x)))).T[:wanted]  # one standard deviation long each
    places = _places(grid).to(x.device, x.dtype)
    if circles:
        angles = pi * places
        places = torch.stack([angles.cos(), angles.sin()], 2).flatten(1) * sqrt(2)
    else:
        places = places * EXTENT
    return mean + places[:, : len(axes)] @ axes


def _places(grid: Grid) -> torch.Tensor:
    """Units along the longer and the shorter side of the grid, from -1 to 1, [units, 2]."""
    y, x = grid.positions.unbind(1)
    height, width = grid.size
    longer_first = [(x, width), (y, height)] if width >= height else [(y, height), (x, width)]
    if grid.is_toroidal:
        return torch.stack([2 * place / length - 1 for place, length in longer_first], 1)
    return torch.stack([2 * place / place.max().clamp(min=1) - 1 for place, _ in longer_first], 1)


def on_examples(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Units on the first rows of `x`, which are in random order; again from the start where there are too few."""
    return x[torch.arange(len(grid), device=x.device) % len(x)]
