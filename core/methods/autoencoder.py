"""Autoencoders: plain, denoising and variational; dense or convolutional; of tables and images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from core.data.examples import write_images
from core.data.images import read_images
from core.data.profile import Kind, Profile
from core.data.sources import TableSource, open_source
from core.data.tables import read_table
from core.errors import InvalidData, InvalidSpec
from core.networks.autoencoder import Autoencoder, write_onnx
from core.networks.saving import save_network
from core.registry import Example, method
from core.spec import TrainingSpec, fill, refuse
from core.training.batches import Batches, split
from core.training.devices import autocast
from core.training.image_grid import write_grid
from core.training.optimization import EarlyStopping, adamw, gradient_scaler, schedule, update
from core.training.run import Run

Size = Annotated[int, Field(ge=1, le=16_384)]
EVALUATION_ROWS = 1000
PICTURED = 16
SAMPLES = 64


class AutoencoderSpec(TrainingSpec):
    """Deep autoencoder: short codes from which a network says the data again; plain, denoising or variational."""

    method: Literal["autoencoder"] = Field("autoencoder", description="The training method.")
    variant: Literal["plain", "denoising", "variational"] = Field(
        "plain", description="Whether inputs are corrupted (denoising) or codes drawn from distributions (variational)."
    )
    architecture: Literal["dense", "convolutional"] = Field(
        "dense", description="Layers of the network; convolutional ones are for images."
    )
    code_size: Size | None = Field(
        None, description="Numbers in a code; none: 30, or half of the features where these are fewer than 60."
    )
    hidden_sizes: Annotated[list[Size], Field(max_length=16)] | None = Field(
        None, description="Widths of the dense encoder's layers, mirrored in the decoder; none: chosen for the data."
    )
    channels: Annotated[list[Size], Field(min_length=1, max_length=8)] | None = Field(
        None, description="Channels of the convolutions, each of which halves the image."
    )
    loss: Literal["cross_entropy", "squared_error"] | None = Field(
        None, description="Distance of an example to its reconstruction; none: cross_entropy for images, else squared."
    )
    noise: Literal["masking", "gaussian"] | None = Field(None, description="How inputs are corrupted for denoising.")
    noise_level: float | None = Field(
        None, gt=0, le=10, description="Fraction of the values that are masked, or deviation of the Gaussian noise."
    )
    beta: float | None = Field(None, ge=0, le=1000, description="Weight of the variational codes' divergence.")
    binarize: bool = Field(False, description="Draw pixels as black or white at each step, white by their brightness.")
    image_size: int | None = Field(
        None, ge=1, le=1024, description="Resize images to this many pixels a side; none: all are of one size."
    )
    epochs: int | None = Field(40, ge=1, le=100_000, description="Passes over the data set.")
    learning_rate: float = Field(2e-3, gt=0, le=100, description="Size of a gradient step, at its peak.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_variant(cls, data: Any) -> Any:
        data = fill(data, "noise", "masking", when=lambda given: given.get("variant") == "denoising")
        data = fill(data, "noise_level", 0.3, when=lambda given: given.get("variant") == "denoising")
        data = fill(data, "beta", 1.0, when=lambda given: given.get("variant") == "variational")
        return fill(data, "channels", [32, 64], when=lambda given: given.get("architecture") == "convolutional")

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.variant != "denoising":
            refuse(self, "noise", "noise_level", because="only the denoising variant corrupts its inputs")
        elif self.noise is None or self.noise_level is None:
            raise ValueError("the denoising variant needs noise and noise_level")
        if self.noise == "masking" and self.noise_level is not None and self.noise_level >= 1:
            raise ValueError("noise_level is the fraction of values masked: give less than 1")
        if self.variant != "variational":
            refuse(self, "beta", because="only the variational variant has a divergence to weigh")
        elif self.beta is None:
            raise ValueError("the variational variant needs beta")
        if self.architecture == "dense":
            refuse(self, "channels", because="the architecture is dense")
        else:
            refuse(self, "hidden_sizes", because="the architecture is convolutional; give channels")
            if self.channels is None:
                raise ValueError("the convolutional architecture needs channels")
        return self


def check(spec: AutoencoderSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    if profile.kind is Kind.TABLE:
        for name, used in _image_settings(spec).items():
            if used:
                raise InvalidSpec(f"{name} is for images, and the data set is a table", param=name)
    if profile.examples < 2:
        raise InvalidData("an autoencoder needs at least two examples", param="dataset")
    if profile.shape is not None:
        shape = profile.shape
        if spec.image_size is not None:
            shape = (shape[0], spec.image_size, spec.image_size)
        _check_shape(spec, shape)


def _image_settings(spec: AutoencoderSpec) -> dict[str, bool]:
    return {
        "architecture": spec.architecture == "convolutional",
        "loss": spec.loss == "cross_entropy",
        "binarize": spec.binarize,
        "image_size": spec.image_size is not None,
    }


def _check_shape(spec: AutoencoderSpec, shape: tuple[int, ...]) -> None:
    features = prod(shape)
    if spec.variant == "plain" and code_size(spec, features=features) >= features:
        raise InvalidSpec(
            f"codes of {code_size(spec, features=features)} are no shorter than the features, which are {features}: "
            "the network would just copy them",
            param="code_size",
        )
    if spec.channels is not None and any(side % 2 ** len(spec.channels) for side in shape[1:]):
        raise InvalidSpec(
            f"{len(spec.channels)} convolutions halve an image {len(spec.channels)} times, which {shape[1]}x{shape[2]} "
            f"pixels do not allow: set image_size to a multiple of {2 ** len(spec.channels)}, or fewer channels",
            param="channels",
        )


class Draw(NamedTuple):
    """A step's examples and its randomness: everything that is drawn before the network comes in."""

    target: torch.Tensor  # [batch, *shape]
    source: torch.Tensor  # the target, or what noise left of it
    code_noise: torch.Tensor  # [batch, code_size] normal for the variational variant, else [batch, 0]

    def to(self, device: torch.device) -> Draw:
        """The same on `device`."""
        return Draw(*(tensor.to(device) for tensor in self))

    def parts(self, count: int) -> Iterator[Draw]:
        """The same, cut into `count` parts, or as many as there are examples."""
        count = min(count, len(self.target))
        return map(Draw, *(tensor.tensor_split(count) for tensor in self))


def draw(x: torch.Tensor, network: Autoencoder, spec: AutoencoderSpec, *, generator: torch.Generator) -> Draw:
    """Prepare a batch; drawn on the CPU, so that every device sees the same noise."""
    if spec.binarize:
        x = torch.bernoulli(x, generator=generator)
    source = x
    if spec.noise == "masking":
        source = x * (torch.rand(x.shape, generator=generator) >= (spec.noise_level or 0.0))
    elif spec.noise == "gaussian":
        source = x + torch.randn(x.shape, generator=generator) * (spec.noise_level or 0.0)
    width = network.code_size if spec.variant == "variational" else 0
    return Draw(x, source, torch.randn(len(x), width, generator=generator))


def reconstruction_loss(decoded: torch.Tensor, target: torch.Tensor, spec: AutoencoderSpec) -> torch.Tensor:
    """Summed over an example's features, [batch]. `decoded` are logits where the examples are images.

    With distributions it must be a negative log-likelihood: of Bernoulli pixels, or of a unit-variance Gaussian.
    """
    is_image = target.dim() == 4
    if is_image and spec.loss != "squared_error":
        return functional.binary_cross_entropy_with_logits(decoded, target, reduction="none").flatten(1).sum(1)
    squared = squared_error(decoded, target)
    return squared / 2 if spec.variant == "variational" else squared


def squared_error(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared differences summed over an example's features, [batch]."""
    reconstruction = decoded.sigmoid() if target.dim() == 4 else decoded
    return (reconstruction - target).square().flatten(1).sum(1)


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """From N(mean, variance) to N(0, 1), summed over a code, [batch], in nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def losses(network: Autoencoder, drawn: Draw, spec: AutoencoderSpec) -> dict[str, torch.Tensor]:
    """Each example's `loss` and its parts, [batch], and what was `decoded`, [batch, *shape].

    The variational loss is the negative evidence lower bound, by one draw of the codes.
    """
    with autocast(spec.precision, drawn.target.device):
        hidden = network.encoder(drawn.source)
        codes = network.code(hidden)
        if network.log_variance is not None:
            mean, log_variance = codes.float(), network.log_variance(hidden).float()
            codes = mean + drawn.code_noise * (log_variance / 2).exp()
        decoded = network.decoder(codes)
    decoded = decoded.float()
    reconstruction = reconstruction_loss(decoded, drawn.target, spec)
    if network.log_variance is None:
        return {"loss": reconstruction, "decoded": decoded}
    divergence = kl_divergence(mean, log_variance)
    loss = reconstruction + (spec.beta or 0.0) * divergence
    return {"loss": loss, "reconstruction_loss": reconstruction, "kl_divergence": divergence, "decoded": decoded}


@method(
    reads=(Kind.TABLE, Kind.IMAGES),
    paper="Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural networks; "
    "denoising: Vincent et al. 2008; variational: Kingma & Welling 2014",
    opens_with="safetensors, onnxruntime (model.onnx: codes and reconstructions; decoder.onnx)",
    example=Example(
        spec={
            "method": "autoencoder",
            "variant": "denoising",
            "hidden_sizes": [64],
            "code_size": 8,
            "epochs": 6,
            "batch_size": 32,
            "validation_fraction": 0.2,
        },
        write_dataset=write_images,
    ),
    check=check,
)
def train(spec: AutoencoderSpec, run: Run) -> Mapping[str, float]:
    """Descend the reconstruction's loss, batch by batch; see `losses` for what it is."""
    data = read_data(spec, run)
    network = build_network(data, spec).to(run.device)
    batches = Batches.of(len(data.training), spec)
    optimizer = adamw(network.parameters(), spec)
    learning_rate = schedule(optimizer, spec, total=len(batches))
    scaler = gradient_scaler(spec, run.device)
    stopping = EarlyStopping(network, patience=spec.early_stopping)
    run.track(network=network, optimizer=optimizer, learning_rate=learning_rate, scaler=scaler, stopping=stopping)

    for batch in run.steps(batches):
        drawn = draw(as_inputs(data.training[batch.rows]), network, spec, generator=run.generator).to(run.device)
        loss = torch.zeros((), device=run.device)
        for part in drawn.parts(spec.accumulate):
            part_loss = losses(network, part, spec)["loss"].sum() / len(batch.rows)
            scaler.scale(part_loss).backward()
            loss += part_loss.detach()
        update(optimizer, learning_rate, spec, scaler=scaler)
        run.log(loss=loss)
        if batch.is_epoch_end and data.validation is not None:
            validation = evaluate(network, data.validation, spec)
            run.report(**{f"valid_{name}": value for name, value in validation.items()})
            if stopping.should_stop(validation["loss"]):
                run.stop_early(f"{spec.early_stopping} epochs without a better validation loss")

    stopping.restore_best()
    write_artifacts(network.eval(), data, spec, run)
    metrics = {f"train_{name}": value for name, value in evaluate(network, data.training, spec).items()}
    if data.validation is not None:
        metrics |= {f"valid_{name}": value for name, value in evaluate(network, data.validation, spec).items()}
    return metrics


class Data(NamedTuple):
    """What is learned from, and what the standardising of a table took off."""

    training: torch.Tensor  # [examples, *shape]; images as uint8 pixels, tables as standardised float32
    validation: torch.Tensor | None
    mean: torch.Tensor | None  # [features], of tables
    std: torch.Tensor | None


def read_data(spec: AutoencoderSpec, run: Run) -> Data:
    """The data set and what to validate on, a file or a fraction of it."""
    training = read_examples(run.dataset, spec)
    validation = read_examples(run.inputs["validation"], spec) if spec.validation is not None else None
    if validation is not None and validation.shape[1:] != training.shape[1:]:
        raise InvalidData(
            f"validation examples have the shape {list(validation.shape[1:])}, those of the data set "
            f"{list(training.shape[1:])}: they must be alike",
            param="validation",
        )
    _check_shape(spec, tuple(training.shape[1:]))
    if spec.validation_fraction is not None:
        rows, held_out = split(len(training), fraction=spec.validation_fraction, seed=spec.seed)
        training, validation = training[rows], training[held_out]
    if training.dtype == torch.uint8:
        return Data(training, validation, None, None)
    std, mean = torch.std_mean(training.double(), dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    scaled = [None if part is None else ((part - mean) / std).float() for part in (training, validation)]
    return Data(scaled[0], scaled[1], mean, std)  # type: ignore[arg-type]  # the first is never None


def read_examples(path: Path, spec: AutoencoderSpec) -> torch.Tensor:
    """Pixels [count, channels, height, width] uint8, or a table's features [count, features] float32."""
    if isinstance(open_source(path), TableSource):
        return read_table(path).features
    return read_images(path, size=spec.image_size).pixels


def as_inputs(examples: torch.Tensor) -> torch.Tensor:
    """What the network takes: pixels in [0, 1], or standardised features."""
    return examples.float() / 255 if examples.dtype == torch.uint8 else examples


def build_network(data: Data, spec: AutoencoderSpec) -> Autoencoder:
    """The network that the spec asks for, to fit the data."""
    shape = tuple(data.training.shape[1:])
    features = prod(shape)
    network = Autoencoder(
        shape,
        code_size=code_size(spec, features=features),
        sizes=layer_sizes(spec, features=features, is_image=len(shape) == 3),
        architecture=spec.architecture,
        is_variational=spec.variant == "variational",
    )
    if data.mean is not None and data.std is not None:
        network.mean.copy_(data.mean)
        network.std.copy_(data.std)
    else:
        network.start_at(data.training.mean(0, dtype=torch.float64).float() / 255)
    return network


def code_size(spec: AutoencoderSpec, *, features: int) -> int:
    """The spec's; else 30, or half of the features where these are fewer than 60."""
    return spec.code_size or max(1, min(30, features // 2))


def layer_sizes(spec: AutoencoderSpec, *, features: int, is_image: bool) -> list[int]:
    """The spec's; else Hinton & Salakhutdinov's 1000-500-250 for images, and two layers that grow with a table."""
    if spec.channels is not None:
        return spec.channels
    if spec.hidden_sizes is not None:
        return spec.hidden_sizes
    width = min(1000, max(64, 8 * features))
    return [1000, 500, 250] if is_image else [width, width // 2]


@torch.no_grad()
def evaluate(network: Autoencoder, examples: torch.Tensor, spec: AutoencoderSpec) -> dict[str, float]:
    """The mean loss, its parts and the squared error over examples; the noise is the same at each call."""
    generator = torch.Generator().manual_seed(spec.seed + 1)
    device = next(network.parameters()).device
    sums: dict[str, torch.Tensor] = {}
    for rows in examples.split(EVALUATION_ROWS):
        drawn = draw(as_inputs(rows), network, spec, generator=generator).to(device)
        found = losses(network, drawn, spec)
        found["squared_error"] = squared_error(found.pop("decoded"), drawn.target)
        for name, values in found.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + values.double().sum()
    return {name: float(total) / len(examples) for name, total in sums.items()}


def write_artifacts(network: Autoencoder, data: Data, spec: AutoencoderSpec, run: Run) -> None:
    """Weights, configuration and ONNX; for images their reconstructions, and samples of a variational one."""
    save_network(network, run.artifacts)
    write_onnx(network, run.artifacts)
    if not network.is_image:
        return
    examples = data.training if data.validation is None else data.validation
    generator = torch.Generator().manual_seed(spec.seed + 1)
    with torch.no_grad():
        drawn = draw(as_inputs(examples[:PICTURED]), network, spec, generator=generator).to(run.device)
        rows = [drawn.source, losses(network, drawn, spec)["decoded"].sigmoid()]
        rows += [drawn.target] if spec.variant == "denoising" else []
        write_grid(torch.cat(rows), run.artifacts / "reconstructions.png", columns=len(drawn.target))
        if network.log_variance is not None:
            codes = torch.randn(SAMPLES, network.code_size, generator=generator).to(run.device)
            write_grid(network.decode(codes), run.artifacts / "samples.png", columns=PICTURED)
