"""The batch map against slow formulas and scikit-learn's digits; its grids, its radius, its pictures, its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from contract import Recorder, run_example
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from core import load_model
from core.catalog import read_spec
from core.data.examples import write_images, write_table
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.methods.self_organizing_map import SelfOrganizingMapSpec, check, move, sides
from core.networks.map_grid import Grid
from core.networks.nearest_units import nearest_two, with_one
from core.networks.self_organizing_map import SelfOrganizingMap
from core.registry import Example

GRIDS = [
    Grid(5, 6),
    Grid(4, 7, is_toroidal=True),
    Grid(5, 6, "hexagonal"),
    Grid(6, 5, "hexagonal", is_toroidal=True),
]


def train_on(data: Path, folder: Path, recorder: Recorder | None = None, **spec: Any) -> tuple[Any, dict[str, float]]:
    inputs = {"dataset": data}
    if isinstance(validation := spec.get("validation"), Path):
        inputs["validation"] = validation
        spec["validation"] = "file-validation"
    example = Example(spec={"method": "self_organizing_map", **spec}, write_dataset=lambda path: None)
    run_example(example, folder, inputs=inputs, recorder=recorder)
    return load_model(folder / "artifacts"), json.loads((folder / "artifacts" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    found = load_digits()
    np.savez(path, x=(found.data / 16).astype(np.float32), y=found.target)
    return path


@pytest.fixture(scope="module")
def of_digits(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, float], Path, Recorder]:
    """A map of scikit-learn's digits, its metrics, its folder, and what was reported."""
    folder, recorder = tmp_path_factory.mktemp("map"), Recorder()
    spec = {"rows": 12, "columns": 12, "standardize": False, "validation_fraction": 0.2}
    return *train_on(digits, folder, recorder, **spec), folder, recorder


def slow_distance(grid: Grid, one: int, other: int) -> float:
    """Between two units, the shortest over all copies of the other that a torus has."""

    def place(unit: int) -> complex:
        row, column = divmod(unit, grid.columns)
        is_hexagonal = grid.topology == "hexagonal"
        return complex(column + (row % 2 / 2 if is_hexagonal else 0), row * (0.75**0.5 if is_hexagonal else 1))

    shifts = (-1, 0, 1) if grid.is_toroidal else (0,)
    height = grid.rows * (0.75**0.5 if grid.topology == "hexagonal" else 1)
    return min(
        abs(place(one) - place(other) + complex(across * grid.columns, down * height))
        for across in shifts
        for down in shifts
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_neighbours_are_the_units_next_by(grid: Grid) -> None:
    reach = 1.01 if grid.topology == "hexagonal" else 1.42
    for unit in range(len(grid)):
        near = {other for other in range(len(grid)) if other != unit and slow_distance(grid, unit, other) <= reach}
        assert {other for other in grid.neighbors[unit].tolist() if other >= 0} == near
    pairs = torch.cartesian_prod(torch.arange(len(grid)), torch.arange(len(grid)))
    slow = torch.tensor([one != other and slow_distance(grid, one, other) <= reach for one, other in pairs.tolist()])
    assert torch.equal(grid.are_neighbors(*pairs.unbind(1)), slow)


@pytest.mark.parametrize("neighborhood", ["gaussian", "bubble", "triangle"])
@pytest.mark.parametrize("grid", GRIDS)
def test_units_move_to_the_weighted_means_of_the_slow_formula(grid: Grid, neighborhood: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=random, dtype=torch.float64)
    winners = torch.randint(0, len(grid), (40,), generator=random)
    network = SelfOrganizingMap((3,), grid.rows, grid.columns, topology=grid.topology, is_toroidal=grid.is_toroidal)
    spec = SelfOrganizingMapSpec(dataset="file-1", neighborhood=neighborhood)
    sums = torch.zeros(len(grid), 4, dtype=torch.float64).index_add_(0, winners, with_one(x))
    move(network, sums, radius=1.3, spec=spec)

    def pull(one: int, other: int) -> float:
        """As a product of rows and columns on a rectangular grid, as in MiniSom."""
        if grid.topology == "hexagonal":
            return fall(slow_distance(grid, one, other))
        rows, columns = (
            abs(a - b) for a, b in zip(divmod(one, grid.columns), divmod(other, grid.columns), strict=True)
        )
        if grid.is_toroidal:
            rows, columns = min(rows, grid.rows - rows), min(columns, grid.columns - columns)
        return fall(rows) * fall(columns)

    def fall(distance: float) -> float:
        if neighborhood == "gaussian":
            return float(np.exp(-(distance**2) / (2 * 1.3**2)))
        return min(max(1.8 - distance, 0), 1) if neighborhood == "bubble" else max(1 - distance / 1.3, 0)

    for unit in range(len(grid)):
        weights = np.array([pull(unit, winner) for winner in winners.tolist()])
        expected = weights @ x.numpy() / weights.sum() if weights.sum() > 0 else np.zeros(3)
        np.testing.assert_allclose(network.units[unit], expected, atol=1e-5)


def test_the_search_finds_the_two_nearest() -> None:
    random = torch.Generator().manual_seed(0)
    x, units = torch.randn(5000, 7, generator=random), torch.randn(300, 7, generator=random)
    found = nearest_two(with_one(x), units)
    distances, numbers = torch.cdist(x, units).topk(2, largest=False)
    assert torch.equal(found.first, numbers[:, 0])
    assert torch.equal(found.second, numbers[:, 1])
    torch.testing.assert_close(found.distance, distances[:, 0], atol=1e-4, rtol=1e-4)


def test_digits_are_laid_out_in_order(of_digits: tuple[Any, dict[str, float], Path, Recorder]) -> None:
    _, metrics, _, recorder = of_digits
    x = load_digits().data / 16
    means = KMeans(144, n_init=1, random_state=0).fit(x)
    unordered = np.linalg.norm(x - means.cluster_centers_[means.labels_], axis=1).mean()
    assert metrics["train_topographic_error"] <= 0.05
    assert metrics["train_quantization_error"] < 1.25 * unordered
    assert metrics["train_purity"] > 0.93
    assert metrics["valid_purity"] > 0.85
    assert metrics["valid_quantization_error"] < 1.15 * metrics["train_quantization_error"]
    errors = [values["quantization_error"] for _, values in recorder.metrics_seen if "quantization_error" in values]
    assert errors[-1] < 0.75 * errors[0]


def test_metrics_are_those_of_the_slow_formula(digits: Path, tmp_path: Path) -> None:
    network, metrics = train_on(digits, tmp_path, rows=6, columns=5, epochs=4, max_topographic_error=None)
    x = torch.from_numpy(load_digits().data / 16).float()
    distances, nearest = network.distances(x).topk(2, largest=False)
    rows, columns = (nearest // 5), (nearest % 5)
    apart = torch.maximum((rows[:, 0] - rows[:, 1]).abs(), (columns[:, 0] - columns[:, 1]).abs())
    assert metrics["train_quantization_error"] == pytest.approx(float(distances[:, 0].mean()), rel=1e-4)
    assert metrics["train_topographic_error"] == pytest.approx(float((apart > 1).float().mean()), abs=2e-3)
    assert torch.equal(network.hits, torch.bincount(nearest[:, 0], minlength=30))
    labels = torch.from_numpy(load_digits().target)
    agreeing = sum(int(torch.bincount(labels[nearest[:, 0] == unit]).max()) for unit in nearest[:, 0].unique())
    assert metrics["train_purity"] == pytest.approx(agreeing / len(x))


def test_classes_are_never_learned_from(tmp_path: Path) -> None:
    write_table(tmp_path / "labelled.csv")
    lines = (tmp_path / "labelled.csv").read_text().splitlines()
    (tmp_path / "bare.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    labelled, metrics = train_on(tmp_path / "labelled.csv", tmp_path / "one", epochs=5)
    bare, others = train_on(tmp_path / "bare.csv", tmp_path / "other", epochs=5)
    assert torch.equal(labelled.units, bare.units)
    assert labelled.class_names == ("a", "b", "c")
    assert metrics["train_purity"] > 0.9
    assert "train_purity" not in others


def test_the_radius_stops_where_the_map_would_tear(digits: Path, tmp_path: Path) -> None:
    settings = {"rows": 10, "columns": 10, "standardize": False, "epochs": 20}
    _, kept = train_on(digits, tmp_path / "kept", **settings)
    _, torn = train_on(digits, tmp_path / "torn", max_topographic_error=None, **settings)
    assert kept["train_topographic_error"] <= 0.05 < torn["train_topographic_error"]
    recorder = Recorder()
    hasty = {"initialization": "sample", "radius": 0.5, "epochs": 2}
    train_on(digits, tmp_path / "hasty", recorder, **{**settings, **hasty})
    assert any("torn" in message for message in recorder.messages)


@pytest.mark.parametrize("settings", [{"toroidal": True}, {"initialization": "sample"}, {"topology": "hexagonal"}])
def test_other_maps_of_digits_keep_their_order_too(digits: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    network, metrics = train_on(digits, tmp_path, rows=10, columns=10, standardize=False, epochs=20, **settings)
    assert metrics["train_topographic_error"] <= 0.05
    assert metrics["train_quantization_error"] < 1.35
    assert network.u_matrix().shape == (10, 10)


def test_samples_in_early_epochs_cost_no_quality(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(30, 8)) * 2
    np.save(
        tmp_path / "x.npy", (centres[random.integers(0, 30, 20_000)] + random.normal(size=(20_000, 8))).astype("f4")
    )
    settings = {"rows": 8, "columns": 8, "epochs": 12, "max_topographic_error": None, "final_radius": 0.7}
    _, sampled = train_on(tmp_path / "x.npy", tmp_path / "sampled", **settings)
    _, whole = train_on(tmp_path / "x.npy", tmp_path / "whole", sampling=False, **settings)
    assert sampled["train_quantization_error"] == pytest.approx(whole["train_quantization_error"], rel=0.02)


def test_far_from_the_origin_nothing_is_lost(digits: Path, tmp_path: Path) -> None:
    x = (load_digits().data / 16).astype(np.float32)
    np.save(tmp_path / "near.npy", x)
    np.save(tmp_path / "far.npy", x + np.float32(1024))
    settings = {"rows": 8, "columns": 8, "standardize": False, "epochs": 5}
    _, near = train_on(tmp_path / "near.npy", tmp_path / "near", **settings)
    _, far = train_on(tmp_path / "far.npy", tmp_path / "far", **settings)
    assert far["train_quantization_error"] == pytest.approx(near["train_quantization_error"], rel=1e-3)


def test_standardised_columns_count_alike(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 4)).astype(np.float32)
    np.save(tmp_path / "one.npy", x)
    np.save(tmp_path / "other.npy", x * np.array([1, 1000, 1e-3, 7], dtype=np.float32) + 5)
    one, metrics = train_on(tmp_path / "one.npy", tmp_path / "1", epochs=5)
    other, others = train_on(tmp_path / "other.npy", tmp_path / "2", epochs=5)
    assert others["train_quantization_error"] == pytest.approx(metrics["train_quantization_error"], rel=1e-2)
    assert float(other.prototypes()[:, 1].std() / one.prototypes()[:, 1].std()) == pytest.approx(1000, rel=0.05)


def test_onnx_finds_the_same_winners(of_digits: tuple[Any, dict[str, float], Path, Recorder]) -> None:
    network, _, folder, _ = of_digits
    x = (load_digits().data[:200] / 16).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / "artifacts" / "model.onnx")
    winners, distances = session.run(["winner", "distance"], {"input": x})
    coordinates, expected = network(torch.from_numpy(x))
    assert np.array_equal(np.stack(np.divmod(winners, 12), 1), coordinates)
    np.testing.assert_allclose(distances, expected, rtol=1e-4)


def test_pictures_are_written_and_shown(
    of_digits: tuple[Any, dict[str, float], Path, Recorder], tmp_path: Path
) -> None:
    _, _, folder, recorder = of_digits
    written = {file.name for file in (folder / "artifacts").glob("*.png")}
    assert {"u_matrix.png", "hits.png", "classes.png"} <= written
    assert "component_planes.png" not in written  # 64 columns are too many
    assert len([sample for sample in recorder.samples if sample.name == "u_matrix"]) == 3
    write_table(tmp_path / "table.csv")
    train_on(tmp_path / "table.csv", tmp_path, topology="hexagonal", epochs=3)
    assert (tmp_path / "artifacts" / "component_planes.png").exists()


def test_units_of_images_are_images(tmp_path: Path) -> None:
    write_images(tmp_path / "images.zip")
    recorder = Recorder()
    network, metrics = train_on(tmp_path / "images.zip", tmp_path, recorder, rows=5, columns=4, image_size=8, epochs=5)
    assert network.prototypes().shape == (20, 1, 8, 8)
    assert -0.01 <= float(network.prototypes().min()) < float(network.prototypes().max()) <= 1.01
    with Image.open(tmp_path / "artifacts" / "units.png") as picture:
        assert picture.size[0] * 5 == picture.size[1] * 4
    assert metrics["train_purity"] > 0.9
    assert {sample.name for sample in recorder.samples} == {"u_matrix", "units"}
    coordinates, distances = network(torch.rand(3, 1, 8, 8))
    assert coordinates.shape == (3, 2)
    assert distances.shape == (3,)


def test_a_validation_file_must_be_like_the_data_set(tmp_path: Path) -> None:
    write_table(tmp_path / "data.csv")
    write_table(tmp_path / "others.csv", columns=5)
    write_images(tmp_path / "images.zip")
    for other in ("others.csv", "images.zip"):
        with pytest.raises(InvalidData, match="alike"):
            train_on(tmp_path / "data.csv", tmp_path, validation=tmp_path / other)
    text = (tmp_path / "data.csv").read_text().replace(",a\n", ",new\n")
    (tmp_path / "classes.csv").write_text(text)
    _, metrics = train_on(tmp_path / "data.csv", tmp_path, validation=tmp_path / "classes.csv", epochs=3)
    assert metrics["valid_quantization_error"] == pytest.approx(metrics["train_quantization_error"], rel=1e-5)
    assert "valid_purity" not in metrics


def test_examples_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((20, 3), dtype=np.float32))
    with pytest.raises(InvalidData, match="same"):
        train_on(tmp_path / "x.npy", tmp_path)


@pytest.mark.parametrize("columns", [1, 2])
def test_few_columns_and_lines_of_units_are_mapped(tmp_path: Path, columns: int) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, columns)).astype(np.float32))
    _, metrics = train_on(tmp_path / "x.npy", tmp_path / "line", rows=1, columns=20)
    assert metrics["train_quantization_error"] < (0.2 if columns == 1 else 0.6)
    train_on(tmp_path / "x.npy", tmp_path / "torus", toroidal=True, topology="hexagonal", epochs=3)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rows": 1, "columns": 1}, "from 2 to"),
        ({"rows": 500, "columns": 500}, "from 2 to"),
        ({"toroidal": True, "rows": 2}, "at least 3"),
        ({"toroidal": True, "topology": "hexagonal", "rows": 7}, "6 or 8"),
        ({"radius": 1.0, "final_radius": 2.0}, "final_radius"),
        ({"validation": "file-2", "validation_fraction": 0.1}, "not both"),
        ({"epochs": 1}, "epochs"),
        ({"neighborhood": "hat"}, "neighborhood"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidSpec, match=match):
        read_spec({"method": "self_organizing_map", "dataset": "file-1", **settings})


def test_what_the_profile_shows_to_be_impossible_is_refused() -> None:
    def spec(**settings: Any) -> SelfOrganizingMapSpec:
        return SelfOrganizingMapSpec(dataset="file-1", **settings)

    table = Profile(Kind.TABLE, "csv", 50, ("a", "b", "kind"), None, (2,))
    images = Profile(Kind.IMAGES, "image_archive", 50, shape=(1, 8, 8))
    with pytest.raises(InvalidSpec, match="image_size"):
        check(spec(image_size=8), table)
    with pytest.raises(InvalidSpec, match="folders"):
        check(spec(label="kind"), images)
    with pytest.raises(InvalidSpec, match="no column 'sort'"):
        check(spec(label="sort"), table)
    with pytest.raises(InvalidData, match="two examples"):
        check(spec(), Profile(Kind.TABLE, "csv", 1, ("a",), None, (1,)))
    check(spec(label="kind"), table)
    check(spec(image_size=8), images)


def test_the_grid_suits_the_number_of_examples() -> None:
    def chosen(examples: int, **settings: Any) -> tuple[int, int]:
        return sides(SelfOrganizingMapSpec(dataset="file-1", **settings), examples=examples)

    assert chosen(2000) == (15, 15)
    assert chosen(2000, rows=5) == (5, 45)
    assert chosen(2000, columns=10) == (22, 10)
    assert chosen(10**9) == (64, 64)
    assert chosen(2, toroidal=True) == (3, 3)
    assert chosen(2000, toroidal=True, topology="hexagonal")[0] % 2 == 0
