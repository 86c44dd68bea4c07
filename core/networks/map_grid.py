"""The grid that a map's units lie on: their places, how far apart they are, and who is whose neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Literal

import torch

Topology = Literal["rectangular", "hexagonal"]

SQUARE = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
EVEN_ROW = ((-1, -1), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 0))  # of a hexagonal grid, whose odd rows lie half a
ODD_ROW = ((-1, 0), (-1, 1), (0, -1), (0, 1), (1, 0), (1, 1))  # unit further to the right


@dataclass(frozen=True)
class Grid:
    """`rows` x `columns` units, numbered row by row, one unit of length from the nearest to the next.

    A unit of a rectangular grid has eight neighbours, as in MiniSom; of a hexagonal one six. On a toroidal grid the
    first row lies beside the last, and the first column beside the last; a hexagonal one then has an even number of
    rows.
    """

    rows: int
    columns: int
    topology: Topology = "rectangular"
    is_toroidal: bool = False

    def __len__(self) -> int:
        return self.rows * self.columns

    @property
    def size(self) -> tuple[float, float]:
        """Height and width, the half unit by which every other hexagonal row stands out not counted."""
        return (self.rows * (sqrt(3) / 2 if self.topology == "hexagonal" else 1.0), float(self.columns))

    @cached_property
    def positions(self) -> torch.Tensor:
        """Each unit's y and x, [units, 2] float64."""
        row, column = self.coordinates(torch.arange(len(self))).double().unbind(1)
        if self.topology == "hexagonal":
            return torch.stack([row * (sqrt(3) / 2), column + (row % 2) / 2], 1)
        return torch.stack([row, column], 1)

    def coordinates(self, units: torch.Tensor) -> torch.Tensor:
        """Row and column, [..., 2], of units given by their numbers."""
        return torch.stack([units // self.columns, units % self.columns], -1)

    def axis_distances(self, axis: int) -> torch.Tensor:
        """How far rows (axis 0) or columns (1) of a rectangular grid are apart, [length, length] float64."""
        places = torch.arange(self.columns if axis else self.rows, dtype=torch.float64)
        return self._wrapped((places[:, None] - places).abs(), axis)

    def distances(self, units: torch.Tensor) -> torch.Tensor:
        """How far these units are from all, [units, all units] float64."""
        apart = (self.positions[units, None] - self.positions).abs()
        return torch.hypot(*(self._wrapped(apart[..., axis], axis) for axis in (0, 1)))

    def _wrapped(self, apart: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.minimum(apart, self.size[axis] - apart).abs() if self.is_toroidal else apart

    @cached_property
    def neighbors(self) -> torch.Tensor:
        """The numbers of each unit's neighbours, [units, 6 or 8]; -1 where the grid ends."""
        coordinates = self.coordinates(torch.arange(len(self)))
        if self.topology == "hexagonal":
            is_odd = coordinates[:, :1, None] % 2 == 1
            steps = torch.where(is_odd, torch.tensor(ODD_ROW), torch.tensor(EVEN_ROW))
        else:
            steps = torch.tensor(SQUARE).expand(len(self), -1, -1)
        sides = torch.tensor([self.rows, self.columns])
        places = coordinates[:, None] + steps
        if self.is_toroidal:
            places = places % sides
        numbers = places[..., 0] * self.columns + places[..., 1]
        return torch.where(((places >= 0) & (places < sides)).all(2), numbers, -1)

    def are_neighbors(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Whether the units of each pair are neighbours, [pairs]."""
        return (self.neighbors.to(first.device)[first] == second[:, None]).any(1)
