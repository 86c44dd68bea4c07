"""Principal component analysis: exact, streamed from disk in flat memory, and accurate far from the origin."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from core.data.examples import write_table
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec, TrainingFailed
from core.networks.onnx_graph import Node, Stage, write_graph
from core.networks.projection import PrincipalComponents
from core.networks.saving import save_network
from core.registry import Example, method
from core.spec import MethodSpec
from core.training.image_grid import write_grid
from core.training.row_blocks import RowBlocks, open_rows
from core.training.run import Run

MAX_FEATURES = 16_384  # beyond, the scatter matrix alone takes over 2 GiB
MEAN_OF_EVERY = 16  # rows of a block, one; they need not be more for a mean that is near
Array = npt.NDArray[Any]

ComponentCount = Annotated[int, Field(ge=1, le=MAX_FEATURES)]
VarianceFraction = Annotated[float, Field(gt=0, lt=1)]


class PCASpec(MethodSpec):
    """Principal component analysis: exact, streamed, and accurate at any distance from the origin."""

    method: Literal["pca"] = Field("pca", description="The training method.")
    n_components: ComponentCount | VarianceFraction | Literal["all"] | None = Field(
        None,
        description="Components to keep: a number, the fraction of variance they must explain, or all (also null).",
    )
    whiten: bool = Field(False, description="Scale codes to unit variance.")
    block_rows: int = Field(8192, ge=1, le=1_000_000, description="Rows read from disk at a time.")
    image_size: int | None = Field(
        None, ge=1, le=1024, description="Resize images to this many pixels a side; none: all are of one size."
    )


class Decomposition(NamedTuple):
    """Every principal component of some rows, in float64, the largest variance first."""

    mean: torch.Tensor  # [features]
    variances: torch.Tensor  # [components]
    components: torch.Tensor  # [components, features]


class Moments(Protocol):
    """What is gathered from the blocks, and what it comes to."""

    @property
    def count(self) -> int:
        """Rows so far."""

    def add(self, rows: torch.Tensor) -> None:
        """Take up a block of rows, [rows, features]."""

    def decompose(self) -> Decomposition:
        """The principal components of all rows so far."""

    def state_dict(self) -> dict[str, Any]:
        """Everything gathered."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


class Scatter:
    """Mean and scatter matrix of blocks of rows, each centred near its own mean (Chan, Golub & LeVeque 1983).

    Sums are kept in float64; a block's products are made in `dtype`, of rows less the mean of some of them: what that
    mean misses is small, so that neither the distance from the origin nor its rounding costs digits. A one at each
    row's end makes the products hold the sums too, which saves readings of the block.
    """

    def __init__(self, features: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device
        self.count = 0
        self.mean = np.zeros(features)
        self.scatter = np.zeros((features, features))
        self._centred = torch.empty(0, features + 1, dtype=dtype, device=device)

    def add(self, rows: torch.Tensor) -> None:
        """Take up a block of rows, [rows, features]."""
        near_mean, products = self._products(rows.to(self.device))
        missed = products[-1, :-1] / len(rows)
        total = self.count + len(rows)
        step = near_mean + missed - self.mean
        apart = np.stack([step, missed])
        self.scatter += products[:-1, :-1]
        self.scatter += (apart.T * [self.count * len(rows) / total, -len(rows)]) @ apart
        self.mean += step * (len(rows) / total)
        self.count = total

    def _products(self, rows: torch.Tensor) -> tuple[Array, Array]:
        """About the block's mean [features], and x'x of its rows less that, with a one at their end."""
        if len(rows) > len(self._centred):
            self._centred = torch.ones(len(rows), rows.shape[1] + 1, dtype=self.dtype, device=self.device)
        near_mean = rows[::MEAN_OF_EVERY].to(self.dtype).mean(0)
        x = self._centred[: len(rows)]
        torch.sub(rows, near_mean, out=x[:, :-1])
        # NumPy's BLAS makes x'x as a symmetric product, which is half of the work; PyTorch's does not.
        products = x.numpy().T @ x.numpy() if x.device.type == "cpu" else (x.T @ x).cpu().numpy()
        return near_mean.double().cpu().numpy(), products.astype(np.float64)

    def decompose(self) -> Decomposition:
        """The principal components of all rows so far."""
        covariance = self.scatter / (self.count - 1)
        if self.device.type == "cpu":  # NumPy's LAPACK is the faster one
            variances, vectors = (torch.from_numpy(found) for found in np.linalg.eigh(covariance))
        else:
            variances, vectors = (
                part.cpu() for part in torch.linalg.eigh(torch.from_numpy(covariance).to(self.device))
            )
        return Decomposition(torch.from_numpy(self.mean), variances.flip(0).clamp(min=0), vectors.T.flip(0))

    def state_dict(self) -> dict[str, Any]:
        """Everything gathered."""
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.count, self.mean, self.scatter = (state_dict[name] for name in ("count", "mean", "scatter"))


class FewRows:
    """Rows no more than features: kept whole, for the thin singular value decomposition."""

    def __init__(self, *, device: torch.device) -> None:
        self.device = device
        self.blocks: list[torch.Tensor] = []

    @property
    def count(self) -> int:
        """Rows so far."""
        return sum(len(block) for block in self.blocks)

    def add(self, rows: torch.Tensor) -> None:
        """Take up a block of rows, [rows, features]."""
        self.blocks.append(rows)

    def decompose(self) -> Decomposition:
        """The principal components of all rows so far."""
        rows = torch.cat(self.blocks).to(self.device, torch.float64)
        mean = rows.mean(0)
        _, singular_values, components = torch.linalg.svd(rows - mean, full_matrices=False)
        mean, singular_values, components = mean.cpu(), singular_values.cpu(), components.cpu()
        return Decomposition(mean, singular_values.square() / (len(rows) - 1), components)

    def state_dict(self) -> dict[str, Any]:
        """Everything gathered."""
        return {"blocks": self.blocks}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.blocks = list(state_dict["blocks"])


def check(spec: PCASpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    if spec.image_size is not None and profile.kind is not Kind.IMAGES:
        raise InvalidSpec("image_size would have no effect: the data set is a table", param="image_size")
    if profile.examples < 2:
        raise InvalidData("principal components need at least two rows", param="dataset")
    if profile.shape is not None:
        channels, *_ = profile.shape
        features = prod(profile.shape) if spec.image_size is None else channels * spec.image_size**2
        _check_size(spec, examples=profile.examples, features=features)


def _check_size(spec: PCASpec, *, examples: int, features: int) -> None:
    if features > MAX_FEATURES < examples:
        raise InvalidData(
            f"rows have {features:,} features, more than {MAX_FEATURES:,}: leave columns out, or set image_size",
            param="dataset",
        )
    most = min(examples - 1, features)
    if isinstance(spec.n_components, int) and spec.n_components > most:
        raise InvalidSpec(
            f"n_components is {spec.n_components}, but {examples:,} rows of {features:,} features have at most {most}",
            param="n_components",
        )


def components_kept(variances: torch.Tensor, spec: PCASpec, *, most: int) -> int:
    """How many components the spec keeps of these; directions without variance are neither found nor whitened."""
    varying = int((variances > variances[0] * len(variances) * torch.finfo(torch.float64).eps).sum())
    most = min(most, len(variances))
    if spec.n_components is None or spec.n_components == "all":
        return min(most, varying)
    if isinstance(spec.n_components, float):
        explained = variances.cumsum(0) / variances.sum()
        return min(int((explained <= spec.n_components).sum()) + 1, varying)
    return min(spec.n_components, most, varying if spec.whiten else most)


def product_type(rows: torch.Tensor, spec: PCASpec) -> torch.dtype:
    """The arithmetic that a block like this one needs for every variance kept to be right to about 1e-7.

    A product of float32 columns errs by the columns' mean variance times 1e-8 or so; that is too much for a component
    that explains far less than the mean column does.
    """
    features = rows.shape[1]
    if len(rows) <= features:
        return torch.float64
    scatter = Scatter(features, dtype=torch.float32, device=rows.device)
    with np.errstate(over="ignore", invalid="ignore"):
        scatter.add(rows[: 4 * features])
    if not np.isfinite(scatter.scatter).all():
        return torch.float64
    variances = torch.from_numpy(np.linalg.eigvalsh(scatter.scatter / (scatter.count - 1))).flip(0)
    largest, smallest = variances[0], variances[components_kept(variances, spec, most=len(variances)) - 1]
    is_in_range = largest < 1e25 and smallest > 1e-25  # sums of squares neither overflow nor vanish
    return torch.float32 if is_in_range and smallest > 0.3 * variances.mean() else torch.float64


def with_fixed_signs(components: torch.Tensor) -> torch.Tensor:
    """Each component with its largest entry positive, as scikit-learn has them."""
    largest = components.abs().argmax(1, keepdim=True)
    return components * components.gather(1, largest).sign()


@method(
    reads=(Kind.TABLE, Kind.IMAGES),
    paper="Pearson 1901, On lines and planes of closest fit to systems of points in space",
    opens_with="scikit-learn (the loader is in docs/methods/pca.md), onnxruntime, safetensors",
    example=Example(spec={"method": "pca", "n_components": 3, "block_rows": 30}, write_dataset=write_table),
    check=check,
)
def train(spec: PCASpec, run: Run) -> Mapping[str, float]:
    """Gather mean and scatter block by block, then take the eigenvectors of the largest variances."""
    blocks = open_rows(run.dataset, rows=spec.block_rows, image_size=spec.image_size)
    _check_size(spec, examples=blocks.examples, features=blocks.features)
    moments = choose_moments(spec, blocks, device=run.device)
    run.track(moments=moments)
    for block in run.steps(blocks):
        moments.add(block)
        run.log(rows=float(moments.count))
    if moments.count < 2:
        raise TrainingFailed("principal components need at least two rows, and fewer were read")
    found = moments.decompose()
    network = build_network(found, spec, examples=moments.count, shape=blocks.shape)
    write_artifacts(network, found, run, examples=moments.count)
    return {
        "n_components": len(network.components),
        "explained_variance_ratio": float(network.explained_variance_ratio.sum()),
        "total_variance": float(found.variances.sum()),
        "examples": moments.count,
    }


def choose_moments(spec: PCASpec, blocks: RowBlocks, *, device: torch.device) -> Moments:
    """What to gather: the rows themselves where they are few, else their scatter."""
    if blocks.examples <= blocks.features:
        return FewRows(device=device)
    return Scatter(blocks.features, dtype=product_type(blocks[0].to(device), spec), device=device)


def build_network(
    found: Decomposition, spec: PCASpec, *, examples: int, shape: tuple[int, ...] | None
) -> PrincipalComponents:
    """The components that the spec keeps, as a network."""
    if is_constant(found):
        raise InvalidData("all rows are the same: there is no variance to explain", param="dataset")
    kept = components_kept(found.variances, spec, most=examples - 1)
    network = PrincipalComponents(len(found.mean), kept, whiten=spec.whiten, shape=shape)
    network.mean.copy_(found.mean)
    network.components.copy_(with_fixed_signs(found.components[:kept]))
    network.explained_variance.copy_(found.variances[:kept])
    network.explained_variance_ratio.copy_(found.variances[:kept] / found.variances.sum())
    return network


def is_constant(found: Decomposition) -> bool:
    """Whether no feature varies by more than what rounding its values to float32 leaves."""
    of_features = (found.variances[:, None] * found.components.square()).sum(0)
    return bool((of_features <= (torch.finfo(torch.float32).eps * found.mean).square()).all())


def write_artifacts(network: PrincipalComponents, found: Decomposition, run: Run, *, examples: int) -> None:
    """Weights, configuration, ONNX, the scree plot, and for images their components."""
    kept = len(network.components)
    left = found.variances[kept : min(examples, len(found.mean))]
    save_network(network, run.artifacts, examples=examples, noise_variance=float(left.mean()) if len(left) else 0.0)
    nodes = [Node("Flatten", attributes={"axis": 1}), Node("Sub", [network.mean]), Node("MatMul", [network.projection])]
    write_graph(
        [Stage("codes", [kept], nodes)], run.artifacts / "model.onnx", shape=network.shape or network.mean.shape
    )
    write_scree(found.variances[:kept], found.variances.sum(), run.artifacts / "scree.png")
    if network.shape is not None:
        components = network.components[:32]
        shown = 0.5 + 0.5 * components / components.abs().amax(1, keepdim=True)
        write_grid(shown.unflatten(1, network.shape), run.artifacts / "components.png", columns=8)


def write_scree(variances: torch.Tensor, total: torch.Tensor, path: Path) -> None:
    """Draw what each component explains, and all up to it, as PNG."""
    from matplotlib.figure import Figure

    ratios = (variances / total).cpu().numpy()
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(1, len(ratios) + 1)
    axes.bar(places, ratios, label="each")
    axes.plot(places, ratios.cumsum(), color="C1", label="together")
    axes.set(title="Explained variance", xlabel="component", ylabel="fraction of the variance", ylim=(0, 1.02))
    axes.legend()
    figure.savefig(path, dpi=100)
