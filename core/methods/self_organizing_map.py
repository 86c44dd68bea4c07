"""Self-organizing map: Kohonen's batch algorithm, whose neighbourhood shrinks as far as the map keeps its order."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from core.data.examples import write_table
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.networks.map_grid import Grid, Topology
from core.networks.map_start import on_examples, on_principal_components
from core.networks.nearest_units import Nearest, exact_distance, nearest_two, with_one
from core.networks.saving import save_network
from core.networks.self_organizing_map import SelfOrganizingMap, write_onnx
from core.registry import Example, method
from core.spec import FileReference, MethodSpec, file_field
from core.training.map_pictures import MapPictures, grey_tiles, image_tiles
from core.training.map_schedule import Part, Radius, Schedule, falling, plan
from core.training.numeric_examples import NumericExamples, read_split
from core.training.run import Run

MOST_UNITS = 16_384
MOST_UNITS_CHOSEN = 64**2
STEP_BYTES = 64 * 2**20  # of standardised rows that a step takes
START_ROWS = 8192  # that principal components are taken from
LEAST_WEIGHT = 1e-200  # of all examples together; a unit that sees less stays where it is
EVALUATED_ROWS = 8192


class SelfOrganizingMapSpec(MethodSpec):
    """A self-organizing map: examples laid out on a grid, so that those alike lie close to each other."""

    method: Literal["self_organizing_map"] = Field("self_organizing_map", description="The training method.")
    rows: int | None = Field(None, ge=1, le=MOST_UNITS, description="Rows of the grid; none: by the examples' number.")
    columns: int | None = Field(
        None, ge=1, le=MOST_UNITS, description="Columns of the grid; none: by the examples' number."
    )
    topology: Topology = Field("rectangular", description="Whether a unit has eight neighbours or six (hexagonal).")
    toroidal: bool = Field(False, description="Join opposite sides of the grid, so that it has no edge.")
    initialization: Literal["pca", "sample"] = Field(
        "pca", description="Start on the plane of two principal components, or on random examples."
    )
    neighborhood: Literal["gaussian", "bubble", "triangle"] = Field(
        "gaussian", description="How the pull of an example on a unit falls with the distance on the grid."
    )
    radius: float | None = Field(
        None, gt=0, le=MOST_UNITS, description="Radius to begin with, in units; none: by the grid and the start."
    )
    final_radius: float = Field(0.4, gt=0, le=MOST_UNITS, description="Radius to end with.")
    radius_schedule: Schedule = Field("exponential", description="How the radius falls from the first to the last.")
    max_topographic_error: float | None = Field(
        0.05,
        ge=0,
        lt=1,
        description="Shrink the radius no further than the map stays as well ordered; none: down to final_radius.",
    )
    epochs: int = Field(20, ge=2, le=100_000, description="Times that all units are moved.")
    sampling: bool = Field(
        True, description="Learn from a part of a large data set while the radius is wide; else always from all of it."
    )
    standardize: bool | None = Field(
        None,
        description="Scale columns (of images: channels) to deviation 1; none: those of tables are, images are not.",
    )
    label: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Column of the classes, which are never learned from; none: found by name.",
    )
    image_size: int | None = Field(
        None, ge=1, le=1024, description="Resize images to this many pixels a side; none: all are of one size."
    )
    validation: FileReference | None = file_field(None, description="Id of a file to measure the map on, too.")
    validation_fraction: float | None = Field(
        None, gt=0, le=0.5, description="Part of the data set held out to measure the map on, instead of a file."
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints; none: every 30 seconds, or rarer where one takes long."
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        rows, columns = self.rows, self.columns
        if rows is not None and columns is not None and not 2 <= rows * columns <= MOST_UNITS:
            raise ValueError(f"a map has from 2 to {MOST_UNITS:,} units: {rows} x {columns} are {rows * columns:,}")
        if self.toroidal and any(side is not None and side < 3 for side in (rows, columns)):
            raise ValueError("a toroidal map needs at least 3 rows and 3 columns")
        if self.toroidal and self.topology == "hexagonal" and rows is not None and rows % 2:
            raise ValueError(f"a toroidal hexagonal map needs an even number of rows: {rows - 1} or {rows + 1}")
        if self.radius is not None and self.radius < self.final_radius:
            raise ValueError(f"the radius shrinks: radius {self.radius} is below final_radius {self.final_radius}")
        if self.validation is not None and self.validation_fraction is not None:
            raise ValueError("give either validation (a file) or validation_fraction, not both")
        return self


def check(spec: SelfOrganizingMapSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    if spec.image_size is not None and profile.kind is not Kind.IMAGES:
        raise InvalidSpec("image_size would have no effect: the data set is a table", param="image_size")
    if spec.label is not None:
        if profile.kind is Kind.IMAGES:
            raise InvalidSpec("label names a column, and the classes of images are their folders", param="label")
        if profile.columns and spec.label not in profile.columns:
            raise InvalidSpec(
                f"the table has no column {spec.label!r}: it has {', '.join(map(repr, profile.columns[:20]))}",
                param="label",
            )
    if profile.examples < (3 if spec.validation_fraction is not None else 2):
        raise InvalidData("a map needs at least two examples to learn from", param="dataset")


def spread(sums: torch.Tensor, grid: Grid, *, radius: float, neighborhood: str) -> torch.Tensor:
    """What each unit sees of all units' `sums` [units, n], weighted by how near they are on the grid, [units, n].

    On a rectangular grid the weight is a product of one for the rows and one for the columns.
    """
    if grid.topology == "rectangular":
        by_row, by_column = (
            falloff(grid.axis_distances(axis), radius, neighborhood).to(sums.device) for axis in (0, 1)
        )
        of_rows = (by_row @ sums.view(grid.rows, -1)).view(grid.rows, grid.columns, -1)
        return (by_column @ of_rows).view(sums.shape)
    blocks = torch.arange(len(grid)).split(1024)
    return torch.cat([falloff(grid.distances(units), radius, neighborhood).to(sums.device) @ sums for units in blocks])


def falloff(distances: torch.Tensor, radius: float, neighborhood: str) -> torch.Tensor:
    """How much an example pulls units at these distances from its nearest, from 0 to 1.

    A bubble pulls all units within the radius alike; its edge is half a unit soft to either side, so that it shrinks
    smoothly.
    """
    if neighborhood == "gaussian":
        return (-0.5 * (distances / radius).square()).exp()
    if neighborhood == "bubble":
        return (radius + 0.5 - distances).clamp(min=0, max=1)
    return (1 - distances / radius).clamp(min=0)


@method(
    reads=(Kind.TABLE, Kind.IMAGES),
    paper="Kohonen 1982, Self-organized formation of topologically correct feature maps; "
    "batch algorithm: Kohonen 2013, Essentials of the self-organizing map",
    opens_with="safetensors, onnxruntime (model.onnx: input to winner and distance)",
    example=Example(
        spec={
            "method": "self_organizing_map",
            "rows": 6,
            "columns": 7,
            "epochs": 8,
            "validation_fraction": 0.2,
        },
        write_dataset=write_table,
    ),
    check=check,
)
@torch.no_grad()
def train(spec: SelfOrganizingMapSpec, run: Run) -> Mapping[str, float]:
    """Give each example to its nearest unit, move each unit to the mean of what it and its neighbours got, repeat."""
    training, held_out = read_data(spec, run)
    network = new_map(training, spec).to(run.device)
    rows = Rows(network, training.values)
    network.units.copy_(start(rows, network.grid, spec))
    radius, tally = Radius(spec.max_topographic_error), Tally(network)
    run.track(network=network, radius=radius, tally=tally)
    for part in run.steps(steps_of(spec, network.grid, examples=len(rows), width=network.units.shape[1])):
        x = rows[part.rows]
        tally.add(x, nearest_two(x, network.units))
        if part.is_epoch_end:
            errors, doubt = tally.errors(), tally.doubt(of=len(rows))
            reach = radius.follow(part.radius, errors, network.units, doubt=doubt)
            move(network, tally.sums, radius=reach, spec=spec)
            tally.clear()
            run.report(**errors, radius=reach)
            if part.is_shown:
                show(network, run)
    return finish(network, radius, rows, training=training, held_out=held_out, run=run)


def read_data(spec: SelfOrganizingMapSpec, run: Run) -> tuple[NumericExamples, NumericExamples | None]:
    """What to learn from, in random order, and what to measure the map on besides."""
    training, held_out = read_split(
        run.dataset,
        run.inputs.get("validation"),
        seed=spec.seed,
        fraction=spec.validation_fraction,
        label=spec.label,
        image_size=spec.image_size,
    )
    if bool(torch.all(training.values == training.values[:1])):
        raise InvalidData("all examples are the same: there is nothing to lay out", param="dataset")
    return training, held_out


def new_map(training: NumericExamples, spec: SelfOrganizingMapSpec) -> SelfOrganizingMap:
    """A map of the size that the spec asks for, or that suits the number of examples; it standardises like them."""
    rows, columns = sides(spec, examples=len(training))
    network = SelfOrganizingMap(
        training.shape,
        rows,
        columns,
        topology=spec.topology,
        is_toroidal=spec.toroidal,
        class_names=training.class_names,
    )
    network.standardization.fit(training.values)
    is_table = training.kind is Kind.TABLE
    if not (is_table if spec.standardize is None else spec.standardize):
        network.standardization.std.fill_(1.0)
    return network


def sides(spec: SelfOrganizingMapSpec, *, examples: int) -> tuple[int, int]:
    """Rows and columns: the spec's, else for some 5 sqrt(examples) units in all (Vesanto & Alhoniemi 2000)."""
    units = min(MOST_UNITS_CHOSEN, 5 * sqrt(examples))
    least = 3 if spec.toroidal else 2
    rows = spec.rows or max(least, round(units / spec.columns if spec.columns else sqrt(units)))
    columns = spec.columns or max(least, round(units / rows))
    if spec.toroidal and spec.topology == "hexagonal":
        rows += rows % 2
    return rows, columns


def start(rows: Rows, grid: Grid, spec: SelfOrganizingMapSpec) -> torch.Tensor:
    """The units to begin with, [units, features]."""
    if spec.initialization == "pca":
        return on_principal_components(rows[slice(0, START_ROWS)][:, :-1], grid)
    return on_examples(rows[slice(0, len(grid))][:, :-1], grid)


def steps_of(spec: SelfOrganizingMapSpec, grid: Grid, *, examples: int, width: int) -> list[Part]:
    """All steps; a map that starts on its principal components needs no radius wide enough to unfold it first."""
    longer = max(grid.rows, grid.columns)
    first = spec.radius or max(spec.final_radius, longer / (4 if spec.initialization == "pca" else 2))
    return plan(
        falling(first, spec.final_radius, epochs=spec.epochs, schedule=spec.radius_schedule),
        examples=examples,
        units=len(grid),
        most_rows=max(1024, STEP_BYTES // (4 * (width + 1))),
        is_sampled=spec.sampling,
    )


class Rows:
    """Examples as the search takes them: standardised, on the network's device, with a one at the end of each."""

    def __init__(self, network: SelfOrganizingMap, examples: torch.Tensor) -> None:
        self.network = network
        self.examples = examples
        self.ready = None if examples.dtype == torch.uint8 else self._prepared(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return self._prepared(self.examples[rows]) if self.ready is None else self.ready[rows]

    def _prepared(self, examples: torch.Tensor) -> torch.Tensor:
        return with_one(self.network.standardized(examples.to(self.network.units.device)))


class Tally:
    """What the examples of an epoch add up to."""

    def __init__(self, network: SelfOrganizingMap) -> None:
        self.grid = network.grid
        self.sums = network.units.new_zeros(len(network.grid), network.units.shape[1] + 1, dtype=torch.float64)
        self.rows = self.distance = self.misplaced = 0.0

    def add(self, x: torch.Tensor, nearest: Nearest) -> None:
        """Add rows `x` [rows, features + 1] to their nearest units."""
        self.sums += torch.zeros_like(self.sums, dtype=x.dtype).index_add_(0, nearest.first, x)
        self.count(nearest)

    def count(self, nearest: Nearest) -> None:
        """Add to the errors alone."""
        self.rows += len(nearest.first)
        self.distance += float(nearest.distance.sum(dtype=torch.float64))
        self.misplaced += float((~self.grid.are_neighbors(nearest.first, nearest.second)).sum())

    def errors(self) -> dict[str, float]:
        """The errors of the units that the rows were given to."""
        return {
            "quantization_error": self.distance / self.rows,
            "topographic_error": self.misplaced / self.rows,
        }

    def doubt(self, *, of: int) -> float:
        """Two standard errors of the topographic error, if the rows are a sample `of` more."""
        share = self.misplaced / self.rows
        return 2 * sqrt(share * (1 - share) / self.rows) if self.rows < of else 0.0

    def clear(self) -> None:
        """Begin an epoch."""
        self.sums.zero_()
        self.rows = self.distance = self.misplaced = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything added up."""
        return {"sums": self.sums, "numbers": [self.rows, self.distance, self.misplaced]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.sums.copy_(state_dict["sums"])
        self.rows, self.distance, self.misplaced = state_dict["numbers"]


def move(network: SelfOrganizingMap, sums: torch.Tensor, *, radius: float, spec: SelfOrganizingMapSpec) -> None:
    """Put each unit at the mean of the examples, weighted by how near to it their units are on the grid.

    `sums` [units, features + 1]: of the examples nearest to each unit, and their number.
    """
    seen = spread(sums, network.grid, radius=radius, neighborhood=spec.neighborhood)
    weights = seen[:, -1:]
    means = (seen[:, :-1] / weights.clamp(min=LEAST_WEIGHT)).float()
    network.units.copy_(torch.where(weights > LEAST_WEIGHT, means, network.units))


def show(network: SelfOrganizingMap, run: Run) -> None:
    """Let people see the distances between neighbouring units, and of images the units themselves."""
    distances = grey_tiles(network.u_matrix(), is_hexagonal=network.grid.topology == "hexagonal")
    run.show("u_matrix", distances, caption="Distance to neighbouring units: dark is near")
    if len(network.shape) == 3:
        run.show("units", image_tiles(network.prototypes(), columns=network.grid.columns), caption="The units")


def evaluate(network: SelfOrganizingMap, rows: Rows) -> tuple[dict[str, float], torch.Tensor]:
    """Mean distance to the nearest unit, the share of examples whose nearest two are no neighbours, and the nearest."""
    tally, winners = Tally(network), []
    for first in range(0, len(rows), EVALUATED_ROWS):
        x = rows[slice(first, first + EVALUATED_ROWS)]
        nearest = nearest_two(x, network.units)
        tally.count(nearest._replace(distance=exact_distance(x[:, :-1], network.units[nearest.first])))
        winners.append(nearest.first)
    return tally.errors(), torch.cat(winners)


def finish(
    network: SelfOrganizingMap,
    radius: Radius,
    rows: Rows,
    *,
    training: NumericExamples,
    held_out: NumericExamples | None,
    run: Run,
) -> dict[str, float]:
    """Keep the best units, count what they stand for, and write all artifacts; answers the metrics."""
    errors, winners = evaluate(network, rows)
    if (better := radius.better_units(errors)) is not None:
        network.units.copy_(better)
        errors, winners = evaluate(network, rows)
    if radius.limit is not None and errors["topographic_error"] > 1.1 * radius.limit:
        run.message(
            f"The map is torn: of {errors['topographic_error']:.0%} of the examples the two nearest units are no "
            "neighbours. Give more epochs, a larger radius, or fewer units.",
            "warn",
        )
    shares = network.count_hits(winners, training.labels)
    metrics = {f"train_{name}": value for name, value in errors.items()}
    if training.labels is not None:
        metrics["train_purity"] = float((shares * network.hits).sum() / len(training))
    if held_out is not None:
        errors, winners = evaluate(network, Rows(network, held_out.values))
        metrics |= {f"valid_{name}": value for name, value in errors.items()}
        if held_out.labels is not None:
            metrics["valid_purity"] = float((network.classes[winners].cpu() == held_out.labels).double().mean())
    write_artifacts(network, shares, columns=training.columns, run=run)
    return {**metrics, "units": len(network.grid), "empty_units": int((network.hits == 0).sum())}


def write_artifacts(network: SelfOrganizingMap, shares: torch.Tensor, *, columns: tuple[str, ...], run: Run) -> None:
    """Weights, configuration, ONNX, and the map's pictures."""
    save_network(network, run.artifacts)
    write_onnx(network, run.artifacts / "model.onnx")
    MapPictures(
        grid=(network.grid.rows, network.grid.columns),
        is_hexagonal=network.grid.topology == "hexagonal",
        distances=network.u_matrix().flatten(),
        hits=network.hits,
        prototypes=network.prototypes(),
        columns=columns,
        classes=network.classes,
        shares=shares,
        class_names=network.class_names,
    ).write(run.artifacts)
