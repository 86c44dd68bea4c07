"""PCA against the float64 singular value decomposition and scikit-learn, near the origin and far from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from contract import Recorder, RequestAfter, method_named, run_example
from pydantic import ValidationError
from sklearn.decomposition import PCA

from core import load_model
from core.catalog import read_spec
from core.data.examples import write_images
from core.data.images import read_images
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.methods.pca import (
    FewRows,
    PCASpec,
    Scatter,
    check,
    components_kept,
    product_type,
    with_fixed_signs,
)
from core.registry import Example
from core.training.row_blocks import open_rows

DOCS = Path(__file__).parents[3] / "docs" / "methods" / "pca.md"


def correlated(rows: int, columns: int, *, offset: float, smallest: float = 0.3) -> np.ndarray:
    """Rows with a falling spectrum, so many standard deviations away from the origin."""
    random = np.random.default_rng(0)
    turn, _ = np.linalg.qr(random.normal(size=(columns, columns)))
    data = random.normal(size=(rows, columns)) * np.geomspace(3, smallest, columns) @ turn
    return (data + offset * data.std(0)).astype(np.float32)


def reference(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances and components by the float64 singular value decomposition."""
    centred = data.astype(np.float64) - data.mean(0, dtype=np.float64)
    _, singular_values, components = np.linalg.svd(centred, full_matrices=False)
    return singular_values**2 / (len(data) - 1), components


def train_on(data: np.ndarray, folder: Path, **spec: Any) -> tuple[Any, dict[str, float]]:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "data.npy", data)
    example = Example(spec={"method": "pca", **spec}, write_dataset=lambda path: None)
    run_example(example, folder, inputs={"dataset": folder / "data.npy"})
    return load_model(folder / "artifacts"), json.loads((folder / "artifacts" / "metrics.json").read_text())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0, 1, 5, 50])
def test_blocks_reach_the_float64_decomposition_at_every_offset(offset: float, dtype: torch.dtype) -> None:
    data = correlated(8_000, 32, offset=offset)
    scatter = Scatter(32, dtype=dtype, device=torch.device("cpu"))
    for block in torch.from_numpy(data).split(1024):
        scatter.add(block)
    found = scatter.decompose()
    variances, components = reference(data)
    kept = 10
    np.testing.assert_allclose(found.variances[:kept], variances[:kept], rtol=1e-6)
    cosines = np.linalg.svd(found.components[:kept].numpy() @ components[:kept].T, compute_uv=False)
    assert cosines.min() > 0.99999


def test_sorted_rows_whose_blocks_lie_far_apart_lose_nothing() -> None:
    data = correlated(8_000, 16, offset=0)
    data[:, 0] = np.linspace(-1e3, 1e3, len(data))
    scatter = Scatter(16, dtype=torch.float32, device=torch.device("cpu"))
    for block in torch.from_numpy(data).split(500):
        scatter.add(block)
    np.testing.assert_allclose(scatter.decompose().variances, reference(data)[0], rtol=1e-5)


def test_all_components_of_a_steep_spectrum_are_exact(tmp_path: Path) -> None:
    data = correlated(5_000, 24, offset=5, smallest=1e-3)
    network, metrics = train_on(data, tmp_path)
    assert metrics["n_components"] == 24
    assert metrics["explained_variance_ratio"] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(network.explained_variance, reference(data)[0], rtol=1e-6)


def test_float32_products_are_used_only_where_they_suffice() -> None:
    def chosen(data: np.ndarray, **spec: Any) -> torch.dtype:
        return product_type(torch.from_numpy(data), PCASpec(dataset="file-1", **spec))

    steep = correlated(2000, 32, offset=0, smallest=1e-3)
    assert chosen(steep, n_components=4) == torch.float32
    assert chosen(steep, n_components="all") == torch.float64
    assert chosen(steep[:20], n_components=4) == torch.float64
    assert chosen(steep * np.float32(1e20), n_components=4) == torch.float64


def test_agrees_with_scikit_learn_on_components_signs_and_codes(tmp_path: Path) -> None:
    data = correlated(3_000, 20, offset=0)
    ours, _ = train_on(data, tmp_path, n_components=5, whiten=True)
    theirs = PCA(5, whiten=True, svd_solver="full").fit(data.astype(np.float64))
    np.testing.assert_allclose(ours.components, theirs.components_, atol=1e-5)
    np.testing.assert_allclose(ours(torch.from_numpy(data)), theirs.transform(data), atol=1e-4)


def test_streamed_equals_in_memory(tmp_path: Path) -> None:
    data = correlated(3_000, 12, offset=5)
    whole, _ = train_on(data, tmp_path / "whole", block_rows=3_000)
    streamed, _ = train_on(data, tmp_path / "streamed", block_rows=17)
    torch.testing.assert_close(streamed.explained_variance, whole.explained_variance, rtol=1e-6, atol=0)
    torch.testing.assert_close(streamed.components, whole.components, rtol=0, atol=1e-6)


def test_blocks_of_a_table_can_be_asked_for_in_any_order(tmp_path: Path) -> None:
    data = correlated(100, 4, offset=0)
    np.save(tmp_path / "data.npy", data)
    blocks = open_rows(tmp_path / "data.npy", rows=30)
    assert [len(block) for block in blocks] == [30, 30, 30, 10]
    for index in (2, 0, 3):
        assert torch.equal(blocks[index], torch.from_numpy(data[30 * index : 30 * index + 30]))


def test_fewer_rows_than_features_are_decomposed_whole(tmp_path: Path) -> None:
    data = correlated(30, 200, offset=50)
    network, metrics = train_on(data, tmp_path, block_rows=7)
    assert metrics["n_components"] == 29
    np.testing.assert_allclose(network.explained_variance, reference(data)[0][:29], rtol=1e-6)


def test_rows_and_scatter_agree() -> None:
    rows = torch.from_numpy(correlated(64, 16, offset=1))
    scatter, few = Scatter(16, dtype=torch.float64, device=rows.device), FewRows(device=rows.device)
    for block in rows.split(10):
        scatter.add(block)
        few.add(block)
    one, other = scatter.decompose(), few.decompose()
    torch.testing.assert_close(one.variances, other.variances)
    torch.testing.assert_close(with_fixed_signs(one.components), with_fixed_signs(other.components))


def test_a_fraction_keeps_the_fewest_components_that_explain_it(tmp_path: Path) -> None:
    data = correlated(2_000, 20, offset=0)
    network, metrics = train_on(data, tmp_path, n_components=0.9)
    assert len(network.components) == PCA(0.9, svd_solver="full").fit(data.astype(np.float64)).n_components_
    assert metrics["explained_variance_ratio"] >= 0.9


def test_whitened_codes_have_unit_variance_and_invert(tmp_path: Path) -> None:
    data = torch.from_numpy(correlated(2_000, 10, offset=5))
    network, _ = train_on(data.numpy(), tmp_path, whiten=True)
    codes = network(data)
    torch.testing.assert_close(torch.cov(codes.T), torch.eye(10), atol=1e-3, rtol=0)
    torch.testing.assert_close(network.inverse(codes), data, atol=1e-3, rtol=1e-4)


def test_directions_without_variance_are_neither_kept_nor_whitened(tmp_path: Path) -> None:
    data = correlated(500, 6, offset=1)
    data[:, 3] = 7
    data[:, 4] = data[:, 5]
    everything, _ = train_on(data, tmp_path / "all")
    whitened, _ = train_on(data, tmp_path / "whitened", n_components=6, whiten=True)
    assert len(everything.components) == len(whitened.components) == 4
    assert torch.isfinite(whitened(torch.from_numpy(data))).all()


def test_rows_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="same"):
        train_on(np.ones((20, 3), dtype=np.float32), tmp_path)


def test_a_cancelled_run_keeps_the_components_of_what_it_read(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", correlated(300, 8, offset=0))
    example = Example(spec={"method": "pca", "n_components": 3, "block_rows": 50}, write_dataset=lambda path: None)
    control, recorder = RequestAfter("cancel", steps=2), Recorder()
    run_example(example, tmp_path, inputs={"dataset": tmp_path / "data.npy"}, control=control, recorder=recorder)
    assert json.loads((tmp_path / "artifacts" / "metrics.json").read_text())["examples"] == 100


def test_the_label_column_is_no_feature(tmp_path: Path) -> None:
    example = method_named("pca").example
    example.write_dataset(tmp_path / "dataset")
    run_example(example, tmp_path, inputs={"dataset": tmp_path / "dataset"})
    network: Any = load_model(tmp_path / "artifacts")
    assert network.components.shape == (3, 6)


def test_images_are_projected_and_come_back_as_images(tmp_path: Path) -> None:
    write_images(tmp_path / "images.zip")
    example = Example(spec={"method": "pca", "n_components": 0.95}, write_dataset=lambda path: None)
    run_example(example, tmp_path, inputs={"dataset": tmp_path / "images.zip"})
    network: Any = load_model(tmp_path / "artifacts")
    images = torch.rand(5, 1, 16, 16)
    codes = network(images)
    assert network.inverse(codes).shape == images.shape
    torch.testing.assert_close(network(images.flatten(1)), codes)
    assert {"scree.png", "components.png"} <= {file.name for file in (tmp_path / "artifacts").iterdir()}


@pytest.mark.parametrize("whiten", [False, True])
def test_onnx_computes_the_same_codes(tmp_path: Path, whiten: bool) -> None:
    data = correlated(400, 9, offset=1)
    network, _ = train_on(data, tmp_path, n_components=4, whiten=whiten)
    session = onnxruntime.InferenceSession(tmp_path / "artifacts" / "model.onnx")
    (codes,) = session.run(["codes"], {"input": data})
    torch.testing.assert_close(torch.from_numpy(codes), network(torch.from_numpy(data)), atol=1e-4, rtol=1e-4)


def test_the_loader_in_the_docs_makes_a_scikit_learn_estimator(tmp_path: Path) -> None:
    data = correlated(400, 9, offset=1)
    network, _ = train_on(data, tmp_path, n_components=4)
    code = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(code, names)
    pca = names["load_pca"](tmp_path / "artifacts")
    np.testing.assert_allclose(pca.transform(data), network(torch.from_numpy(data)), atol=1e-4)
    np.testing.assert_allclose(
        pca.inverse_transform(pca.transform(data)), network.inverse(network(torch.from_numpy(data))), atol=1e-4
    )
    theirs = PCA(4, svd_solver="full").fit(data.astype(np.float64))
    assert pca.noise_variance_ == pytest.approx(theirs.noise_variance_, rel=1e-5)
    np.testing.assert_allclose(pca.singular_values_, theirs.singular_values_, rtol=1e-5)
    assert pca.score(data) == pytest.approx(theirs.score(data), rel=1e-4)


@pytest.mark.parametrize("value", [0, 1.5, -0.1, "most"])
def test_impossible_numbers_of_components_are_refused(value: Any) -> None:
    with pytest.raises((ValidationError, InvalidSpec)):
        read_spec({"method": "pca", "dataset": "file-1", "n_components": value})


def test_what_the_profile_shows_to_be_impossible_is_refused() -> None:
    def spec(**settings: Any) -> PCASpec:
        return PCASpec(dataset="file-1", **settings)

    def profile(kind: Kind, examples: int, shape: tuple[int, ...]) -> Profile:
        return Profile(kind=kind, format="", examples=examples, columns=(), classes=None, shape=shape, words=None)

    with pytest.raises(InvalidSpec, match="at most 4"):
        check(spec(n_components=5), profile(Kind.TABLE, 5, (9,)))
    with pytest.raises(InvalidSpec, match="image_size"):
        check(spec(image_size=8), profile(Kind.TABLE, 50, (9,)))
    with pytest.raises(InvalidData, match="two"):
        check(spec(), profile(Kind.TABLE, 1, (9,)))
    with pytest.raises(InvalidData, match="image_size"):
        check(spec(), profile(Kind.IMAGES, 10**5, (3, 256, 256)))
    check(spec(image_size=32), profile(Kind.IMAGES, 10**5, (3, 256, 256)))
    check(spec(), profile(Kind.IMAGES, 200, (3, 256, 256)))


def test_components_kept_counts_as_the_spec_says() -> None:
    variances = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0], dtype=torch.float64)

    def kept(n_components: Any) -> int:
        return components_kept(variances, PCASpec(dataset="file-1", n_components=n_components), most=5)

    assert [kept(value) for value in (None, "all", 2, 0.69, 0.71, 0.9999)] == [4, 4, 2, 2, 3, 4]


STREAM = """
import resource, sys
from pathlib import Path
from core.catalog import read_spec
from core.execution import train
from core.training.run import Run
from contract import Recorder

def run(name):
    spec = read_spec({"method": "pca", "dataset": "file-1", "n_components": 5, "block_rows": 2048})
    folder = Path(sys.argv[1]) / f"run-{name}"
    train(Run(spec=spec, inputs={"dataset": Path(sys.argv[1]) / name}, folder=folder, reporter=Recorder()), lineage={})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = run("small.npy")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
print(run("large.npy") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_larger_than_the_memory_it_may_take_is_streamed(tmp_path: Path) -> None:
    allowed = 28 * 2**20
    random = np.random.default_rng(0)
    rows = random.normal(size=(20_000, 64)) * np.geomspace(3, 0.3, 64) + 50
    np.save(tmp_path / "small.npy", rows[:2_000].astype(np.float32))
    copies = 24
    large = np.lib.format.open_memmap(
        tmp_path / "large.npy", mode="w+", dtype=np.float32, shape=(copies * len(rows), 64)
    )
    for copy in range(copies):
        large[copy * len(rows) : (copy + 1) * len(rows)] = rows
    large.flush()
    assert large.nbytes > 4 * allowed
    code = [sys.executable, "-c", STREAM, str(tmp_path), str(allowed)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(code, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < allowed
    streamed: Any = load_model(tmp_path / "run-large.npy" / "artifacts")
    variances, components = reference(rows.astype(np.float32))
    expected = variances[:5] * (len(rows) - 1) * copies / (len(large) - 1)
    np.testing.assert_allclose(streamed.explained_variance, expected, rtol=1e-6)
    cosines = np.linalg.svd(streamed.components.double().numpy() @ components[:5].T, compute_uv=False)
    assert cosines.min() > 0.99999


@pytest.mark.parametrize("size", [None, 8])
def test_images_are_streamed_too(tmp_path: Path, size: int | None) -> None:
    write_images(tmp_path / "images.zip")
    pixels = read_images(tmp_path / "images.zip", size=size).pixels
    np.save(tmp_path / "images.npy", read_images(tmp_path / "images.zip").pixels[:, 0].numpy())
    for name in ("images.zip", "images.npy"):
        blocks = open_rows(tmp_path / name, rows=50, image_size=size)
        assert blocks.shape == tuple(pixels.shape[1:])
        assert [len(block) for block in blocks] == [50, 50, 20]
        torch.testing.assert_close(torch.cat(list(blocks)), pixels.flatten(1).float() / 255)
