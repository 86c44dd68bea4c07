"""Pictures of what lies on the units of a map: values, classes, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from core.training.image_grid import write_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL_INCHES = 3.2
PANELS_A_ROW = 4
TILE_PIXELS = 8
IMAGE_PIXELS = 32
GAP = 2
WIDEST_PICTURE = 2048  # pixels of a picture of all units
DISTINCT_COLOURS = 20
MOST_PLANES = 36


@dataclass(frozen=True)
class MapPictures:
    """What there is to draw of a map, unit by unit, in the order of its grid."""

    grid: tuple[int, int]  # rows, columns
    is_hexagonal: bool
    distances: torch.Tensor  # [units] to their neighbours
    hits: torch.Tensor  # [units]
    prototypes: torch.Tensor  # [units, *shape]
    columns: tuple[str, ...]  # of a table
    classes: torch.Tensor  # [units] an index into class_names, or -1
    shares: torch.Tensor  # [units] of the class among the unit's examples
    class_names: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write u_matrix.png, hits.png, and what else there is: classes.png, component_planes.png or units.png."""
        figures = {
            "u_matrix": self._planes({"Distance to neighbouring units": self.distances}),
            "hits": self._planes({"Examples": self.hits}),
        }
        if self.class_names:
            classes, shares = self.classes.view(self.grid), self.shares.view(self.grid)
            figures["classes"] = draw_classes(classes, shares, self.class_names, is_hexagonal=self.is_hexagonal)
        if self.columns and len(self.columns) <= MOST_PLANES:
            figures["component_planes"] = self._planes(dict(zip(self.columns, self.prototypes.T, strict=True)))
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=100)
        if self.prototypes.dim() == 4:
            write_grid(image_tiles(self.prototypes, columns=self.grid[1]), folder / "units.png", columns=1)

    def _planes(self, planes: Mapping[str, torch.Tensor]) -> Figure:
        shaped = {title: values.view(self.grid) for title, values in planes.items()}
        return draw_planes(shaped, is_hexagonal=self.is_hexagonal)


def draw_planes(planes: Mapping[str, torch.Tensor], *, is_hexagonal: bool) -> Figure:
    """Values [grid rows, grid columns] as colours on the grid, a panel for each title."""
    figure, panels = _panels(len(planes))
    for axes, (title, values) in zip(panels, planes.items(), strict=True):
        drawn = _draw_cells(axes, values.shape, is_hexagonal=is_hexagonal)
        drawn.set_array(values.double().flatten().cpu().numpy())
        axes.set_title(title, fontsize=10)
        figure.colorbar(drawn, ax=axes, fraction=0.046)
    return figure


def draw_classes(
    classes: torch.Tensor, shares: torch.Tensor, class_names: Sequence[str], *, is_hexagonal: bool
) -> Figure:
    """Each unit in the colour of its class, the paler the smaller its share; units of class -1 stay white.

    `classes`, `shares`: [grid rows, grid columns], shares from 0 to 1.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    palette = "tab10" if len(class_names) <= 10 else "tab20" if len(class_names) <= DISTINCT_COLOURS else "hsv"
    levels = np.linspace(0, 1, len(class_names), endpoint=False) if palette == "hsv" else np.arange(len(class_names))
    colours = colormaps[palette](levels)[:, :3]
    chosen, share = classes.flatten().cpu().numpy(), shares.flatten().cpu().numpy()[:, None]
    shown = np.where(chosen[:, None] >= 0, 1 - share * (1 - colours[np.maximum(chosen, 0)]), 1.0)
    figure, (axes,) = _panels(1)
    _draw_cells(axes, classes.shape, is_hexagonal=is_hexagonal).set_facecolor(shown)
    axes.set_title("Classes", fontsize=10)
    if len(class_names) <= DISTINCT_COLOURS:
        legend = [Patch(color=tuple(colour), label=name) for colour, name in zip(colours, class_names, strict=True)]
        axes.legend(handles=legend, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def _panels(count: int) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(count, PANELS_A_ROW)
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL_INCHES * columns + 1, PANEL_INCHES * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in panels[count:]:
        unused.set_axis_off()
    return figure, panels[:count]


def _draw_cells(axes: Any, grid: Sequence[int], *, is_hexagonal: bool) -> Any:
    from matplotlib.collections import PolyCollection

    row, column = (places.flatten() for places in np.mgrid[: grid[0], : grid[1]])
    if is_hexagonal:
        centres = np.stack([column + (row % 2) / 2, row * sqrt(3) / 2], 1)
        angles = np.deg2rad(np.arange(30, 390, 60))
        corners = np.stack([np.cos(angles), np.sin(angles)], 1) / sqrt(3)
    else:
        centres = np.stack([column, row], 1)
        corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    drawn = axes.add_collection(PolyCollection(list(centres[:, None] + corners), linewidths=0, antialiaseds=False))
    axes.set(xlim=(-0.6, centres[:, 0].max() + 0.6), ylim=(centres[:, 1].max() + 0.6, -0.6), aspect="equal")
    axes.set_axis_off()
    return drawn


def grey_tiles(values: torch.Tensor, *, is_hexagonal: bool) -> torch.Tensor:
    """Values [grid rows, grid columns] as one grey image [1, 1, height, width], the lowest black, the highest white."""
    values = values - values.min()
    tiles = (values / values.max().clamp(min=1e-12)).repeat_interleave(TILE_PIXELS, 0)
    tiles = tiles.repeat_interleave(TILE_PIXELS, 1)
    if is_hexagonal:
        is_odd = torch.arange(len(tiles), device=tiles.device) // TILE_PIXELS % 2 == 1
        even, odd = functional.pad(tiles, (0, TILE_PIXELS // 2)), functional.pad(tiles, (TILE_PIXELS // 2, 0))
        tiles = torch.where(is_odd[:, None], odd, even)
    return tiles[None, None]


def image_tiles(images: torch.Tensor, *, columns: int) -> torch.Tensor:
    """Images [units, channels, height, width], row by row of the grid, as one [1, channels, height, width].

    Small images are enlarged by a whole factor; large ones are made smaller, so that the picture stays one to look at.
    """
    rows, longer = len(images) // columns, max(images.shape[2:])
    most = max(1, WIDEST_PICTURE // max(rows, columns))
    if longer > most:
        images = functional.interpolate(images, size=[max(1, side * most // longer) for side in images.shape[2:]])
    factor = max(1, min(IMAGE_PIXELS, most) // longer)
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    images = functional.pad(images, (0, GAP, 0, GAP), value=0.5)
    lines = [torch.cat(list(line), 2) for line in images.split(columns)]
    return torch.cat(lines, 1)[None]
