"""A self-organizing map: units on a grid, each with a place among the examples that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import nn

from core.networks.map_grid import Grid, Topology
from core.networks.nearest_units import exact_distance, nearest_two, with_one
from core.networks.onnx_graph import IR_VERSION, OPSET
from core.networks.saving import network
from core.networks.standardization import Standardization


@network("self-organizing-map")
class SelfOrganizingMap(nn.Module):
    """Finds the unit nearest to an example, and where on the grid it lies.

    `shape`: (features,) of a table, (channels, height, width) of images with pixels in [0, 1]; standardised inside, and
    distances are those of standardised examples. `class_names`: of the training examples, if they had classes.
    """

    units: torch.Tensor  # [units, features], of standardised examples
    hits: torch.Tensor  # [units] int64: training examples that each unit is nearest to
    classes: torch.Tensor  # [units] int64: the class of most of them, an index into class_names; -1 where none is known

    def __init__(
        self,
        shape: Sequence[int],
        rows: int,
        columns: int,
        *,
        topology: Topology = "rectangular",
        is_toroidal: bool = False,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.config = {
            "shape": list(shape),
            "rows": rows,
            "columns": columns,
            "topology": topology,
            "is_toroidal": is_toroidal,
            "class_names": list(class_names),
        }
        self.shape = tuple(shape)
        self.grid = Grid(rows, columns, topology, is_toroidal)
        self.class_names = tuple(class_names)
        self.standardization = Standardization(self.shape)
        self.register_buffer("units", torch.zeros(len(self.grid), prod(self.shape)))
        self.register_buffer("hits", torch.zeros(len(self.grid), dtype=torch.int64))
        self.register_buffer("classes", torch.full((len(self.grid),), -1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of the unit nearest to each of `x` [rows, *shape], [rows, 2], and the distance, [rows]."""
        x = self.standardized(x)
        winners = nearest_two(with_one(x), self.units).first
        return self.grid.coordinates(winners), exact_distance(x, self.units[winners])

    def distances(self, x: torch.Tensor) -> torch.Tensor:
        """From each of `x` [rows, *shape] to every unit, [rows, units]."""
        distances: torch.Tensor = torch.cdist(self.standardized(x), self.units)
        return distances

    def standardized(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised examples as rows, [rows, features]; uint8 pixels count as fractions of 255."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        rows: torch.Tensor = self.standardization(x).flatten(1)
        return rows

    def prototypes(self) -> torch.Tensor:
        """The units in the examples' own scale, [units, *shape]."""
        units = self.units.unflatten(1, self.shape)
        prototypes: torch.Tensor = units * self.standardization.std + self.standardization.mean
        return prototypes

    def count_hits(self, winners: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """Note how many training examples are nearest to each unit, and the class of most; answers its share, [units].

        `winners`, `labels` [examples]: each example's nearest unit and class.
        """
        self.hits.copy_(torch.bincount(winners, minlength=len(self.grid)))
        if labels is None:
            return torch.zeros_like(self.units[:, 0])
        places = winners * len(self.class_names) + labels.to(winners.device)
        counts = torch.bincount(places, minlength=len(self.grid) * len(self.class_names)).view(len(self.grid), -1)
        most, commonest = counts.max(1)
        self.classes.copy_(torch.where(most > 0, commonest, -1))
        return most / self.hits.clamp(min=1)

    def u_matrix(self) -> torch.Tensor:
        """Each unit's mean distance to its neighbours, [grid rows, grid columns] (Ultsch & Siemon 1990).

        High where the map crosses a gap between groups of examples.
        """
        neighbors = self.grid.neighbors.to(self.units.device)
        total, count = torch.zeros_like(self.units[:, 0]), torch.zeros_like(self.units[:, 0])
        for others in neighbors.unbind(1):
            is_inside = others >= 0
            total += exact_distance(self.units, self.units[others]) * is_inside
            count += is_inside
        return (total / count.clamp(min=1)).view(self.grid.rows, self.grid.columns)


def write_onnx(network: SelfOrganizingMap, path: Path) -> None:
    """Write `input` [rows, *shape] to `winner`, the nearest unit's number, and `distance`, both [rows]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = {
        "mean": network.standardization.mean,
        "std": network.standardization.std,
        "units": network.units,
        "bias": -network.units.square().sum(1) / 2,
        "features": torch.tensor([1]),
    }
    nodes = [
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["standardized"]),
        helper.make_node("Flatten", ["standardized"], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "units", "bias"], ["scores"], transB=1),
        helper.make_node("ArgMax", ["scores"], ["winner"], axis=1, keepdims=0),
        helper.make_node("Gather", ["units", "winner"], ["nearest"], axis=0),
        helper.make_node("Sub", ["x", "nearest"], ["difference"]),
        helper.make_node("ReduceL2", ["difference", "features"], ["distance"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", *network.shape])],
        [
            helper.make_tensor_value_info("winner", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["rows"]),
        ],
        [numpy_helper.from_array(weight.cpu().numpy(), name) for name, weight in weights.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="weightworks")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
