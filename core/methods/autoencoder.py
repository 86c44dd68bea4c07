"""Autoencoders: plain, denoising, sparse, variational and masked; dense, convolutional or vision transformers."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator

from core.data.examples import write_images
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.networks.architectures import Size
from core.networks.autoencoder import (
    Autoencoder,
    check_code_size,
    check_halving,
    default_code_size,
    default_sizes,
    write_onnx,
)
from core.networks.classifier import Scaling
from core.networks.masked_autoencoder import MaskedAutoencoder, MaskedViT, check_patches
from core.networks.saving import save_network
from core.networks.standardization import moments
from core.registry import Example, method
from core.spec import TrainingSpec, fill, refuse
from core.training.batches import Batches
from core.training.devices import autocast
from core.training.image_grid import write_grid
from core.training.learning import Learning
from core.training.parts import to_device
from core.training.reconstruction import (
    cross_entropy,
    kl_divergence,
    patch_loss,
    patch_moments,
    sparsity_divergence,
    squared_error,
    what_failed,
)
from core.training.run import Run
from core.training.unlabelled import Unlabelled, as_inputs, read_unlabelled

Network = Autoencoder | MaskedAutoencoder
EVALUATION_ROWS = 1000
PICTURED = 10
SAMPLES = 60
ACTIVE = 0.1  # from there on a sparse unit counts as active
CAPTION = "As the network saw them, as it says them again, and, where it did not see all, as they are"

# The settings that mean something for one variant only, and what they are where they are not given.
SETTINGS_OF_VARIANT: Mapping[str, Mapping[str, Any]] = {
    "denoising": {"noise": "masking", "noise_level": 0.3},
    "sparse": {"sparsity_target": 0.05, "sparsity_weight": 1.0},
    "variational": {"beta": 1.0},
    "masked": {"mask_ratio": 0.75, "normalize_patches": False, "transformer": {}},
}


class AutoencoderSpec(TrainingSpec):
    """Deep autoencoder: a network says the data in codes and again from these; plain, denoising, sparse, variational
    or masked.
    """

    method: Literal["autoencoder"] = Field("autoencoder", description="The training method.")
    variant: Literal["plain", "denoising", "sparse", "variational", "masked"] = Field(
        "plain",
        description="Whether inputs are corrupted (denoising), few code units may be active (sparse), codes are drawn "
        "from distributions (variational), or most patches of an image are hidden (masked).",
    )
    architecture: Literal["dense", "convolutional", "vision_transformer"] = Field(
        "dense", description="Layers of the network: convolutional for images; masked needs vision_transformer."
    )
    code_size: Size | None = Field(
        None,
        description="Numbers in a code; none: 30, or half of the features where these are fewer than 60; sparse: 256, "
        "or twice the features where these are fewer than 128.",
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
    sparsity_target: float | None = Field(
        None, gt=0, lt=1, description="Mean activation, between 0 and 1, to which each unit of a sparse code is drawn."
    )
    sparsity_weight: float | None = Field(
        None, gt=0, le=1000, description="Weight of the divergence between the units' activations and their target."
    )
    beta: float | None = Field(None, ge=0, le=1000, description="Weight of the variational codes' divergence.")
    mask_ratio: float | None = Field(
        None, gt=0, lt=1, description="Fraction of an image's patches that the masked variant hides."
    )
    normalize_patches: bool | None = Field(
        None, description="Whether hidden patches are to be said at mean 0 and variance 1 each."
    )
    transformer: MaskedViT | None = Field(None, description="Sizes of the masked variant's vision transformer.")
    binarize: bool = Field(False, description="Draw pixels as black or white at each step, white by their brightness.")
    image_size: int | None = Field(
        None, ge=1, le=1024, description="Resize images to this many pixels a side; none: all are of one size."
    )
    epochs: int | None = Field(40, ge=1, le=100_000, description="Passes over the data set.")
    learning_rate: float = Field(2e-3, gt=0, le=100, description="Size of a gradient step, at its peak; masked: 0.001.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_variant(cls, data: Any) -> Any:
        for variant, settings in SETTINGS_OF_VARIANT.items():
            for name, default in settings.items():
                data = fill(data, name, default, when=lambda given, v=variant: given.get("variant") == v)
        data = fill(data, "architecture", "vision_transformer", when=lambda given: given.get("variant") == "masked")
        data = fill(data, "learning_rate", 1e-3, when=lambda given: given.get("variant") == "masked")
        return fill(data, "channels", [32, 64], when=lambda given: given.get("architecture") == "convolutional")

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        for variant, settings in SETTINGS_OF_VARIANT.items():
            if self.variant != variant:
                refuse(self, *settings, because=f"it is for the {variant} variant")
            elif missing := [name for name in settings if getattr(self, name) is None]:
                raise ValueError(f"the {variant} variant needs {missing[0]}")
        if self.noise == "masking" and self.noise_level is not None and self.noise_level >= 1:
            raise ValueError("noise_level is the fraction of values masked: give less than 1")
        return self

    @model_validator(mode="after")
    def _architecture_fits(self) -> Self:
        if (self.variant == "masked") != (self.architecture == "vision_transformer"):
            raise ValueError("architecture vision_transformer is for the masked variant, which can have no other")
        if self.architecture != "convolutional":
            refuse(self, "channels", because=f"the architecture is {self.architecture}")
        elif self.channels is None:
            raise ValueError("the convolutional architecture needs channels")
        if self.architecture != "dense":
            refuse(self, "hidden_sizes", because="the architecture is convolutional; give channels")
        if self.variant == "masked":
            refuse(self, "code_size", "loss", because="the masked variant says patches, by their squared error")
            if self.binarize:
                raise ValueError("binarize would have no effect: the masked variant takes pixels as they are")
        return self


def check(spec: AutoencoderSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    if profile.kind is Kind.TABLE:
        for name, used in _image_settings(spec).items():
            if used:
                raise InvalidSpec(f"{name} {getattr(spec, name)} is for images: the data set is a table", param=name)
    if profile.examples < 2:
        raise InvalidData("an autoencoder needs at least two examples", param="dataset")
    if profile.shape is not None:
        shape = profile.shape
        if spec.image_size is not None:
            shape = (shape[0], spec.image_size, spec.image_size)
        _check_shape(spec, shape)


def _image_settings(spec: AutoencoderSpec) -> dict[str, bool]:
    return {
        "variant": spec.variant == "masked",
        "architecture": spec.architecture == "convolutional",
        "loss": spec.loss == "cross_entropy",
        "binarize": spec.binarize,
        "image_size": spec.image_size is not None,
    }


def _check_shape(spec: AutoencoderSpec, shape: tuple[int, ...]) -> None:
    if spec.transformer is not None:
        check_patches(spec.transformer, shape, mask_ratio=spec.mask_ratio or 0.0)
        return
    if spec.variant == "plain":
        check_code_size(spec.code_size or default_code_size(prod(shape), is_sparse=False), features=prod(shape))
    if spec.channels is not None:
        check_halving(spec.channels, shape)


class Draw(NamedTuple):
    """A step's examples and its randomness: everything that is drawn before the network comes in."""

    target: torch.Tensor  # [batch, *shape]
    source: torch.Tensor  # the target, or what noise left of it
    noise: torch.Tensor  # variational: [batch, code_size] normal; masked: [batch, patches] uniform; else [batch, 0]


def draw(x: torch.Tensor, network: Network, spec: AutoencoderSpec, *, generator: torch.Generator) -> Draw:
    """Prepare a batch; drawn on the CPU, so that every device sees the same noise."""
    if isinstance(network, MaskedAutoencoder):
        return Draw(x, x, torch.rand(len(x), network.patch_count, generator=generator))
    if spec.binarize:
        x = torch.bernoulli(x, generator=generator)
    source = x
    if spec.noise == "masking":
        source = x * (torch.rand(x.shape, generator=generator) >= (spec.noise_level or 0.0))
    elif spec.noise == "gaussian":
        source = x + torch.randn(x.shape, generator=generator) * (spec.noise_level or 0.0)
    width = network.code_size if spec.variant == "variational" else 0
    return Draw(x, source, torch.randn(len(x), width, generator=generator))


def losses(network: Network, drawn: Draw, spec: AutoencoderSpec) -> dict[str, torch.Tensor]:
    """Each example's `loss`, [batch], the parts of it, and what was `decoded`, of which the network makes examples."""
    if isinstance(network, MaskedAutoencoder):
        return masked_losses(network, drawn, spec)
    with autocast(spec.precision, drawn.target.device):
        hidden = network.encoder(drawn.source)
        codes = network.codes(hidden).float()
        if network.log_variance is not None:
            mean, log_variance = codes, network.log_variance(hidden).float()
            codes = mean + drawn.noise * (log_variance / 2).exp()
        decoded = network.decoder(codes).float()
    if network.is_image and spec.loss != "squared_error":
        loss = cross_entropy(decoded, drawn.target)
    else:  # as a likelihood, it is that of a Gaussian of unit variance
        loss = squared_error(network.as_examples(decoded), drawn.target) / (2 if spec.variant == "variational" else 1)
    found = {"loss": loss, "decoded": decoded}
    if spec.beta is not None:  # the negative evidence lower bound, by one draw of the codes
        divergence = kl_divergence(mean, log_variance)
        found |= {"loss": loss + spec.beta * divergence, "reconstruction_loss": loss, "kl_divergence": divergence}
    if spec.sparsity_target is not None and spec.sparsity_weight is not None:
        penalty = spec.sparsity_weight * sparsity_divergence(codes, spec.sparsity_target)
        found |= {"loss": loss + penalty, "reconstruction_loss": loss, "activation": codes.mean(1)}
        found["active_fraction"] = (codes > ACTIVE).float().mean(1)
    return found


def masked_losses(network: MaskedAutoencoder, drawn: Draw, spec: AutoencoderSpec) -> dict[str, torch.Tensor]:
    """The `loss` of the patches that were hidden; `decoded` are these as they were said, and the others as they are."""
    with autocast(spec.precision, drawn.target.device):
        predicted, hidden = network(drawn.source, drawn.noise)
    predicted, patches = predicted.float(), network.patches(drawn.target)
    mean, std = patch_moments(patches) if spec.normalize_patches else (0.0, 1.0)
    loss = patch_loss(predicted, (patches - mean) / std, hidden)
    return {"loss": loss, "decoded": torch.where(hidden[:, :, None] > 0, predicted * std + mean, patches)}


@method(
    reads=(Kind.TABLE, Kind.IMAGES),
    paper="Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural networks; denoising: "
    "Vincent et al. 2008; sparse: Ng 2011; variational: Kingma & Welling 2014; masked: He et al. 2022",
    opens_with="safetensors, onnxruntime (model.onnx: codes and reconstructions; decoder.onnx); masked: transformers "
    "(ViTMAEForPreTraining; AutoModel on encoder/, a ViTModel)",
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
    data = read_unlabelled(spec, run, image_size=spec.image_size)
    network = build_network(data, spec).to(run.device)
    batches = Batches.of(len(data.training), spec)
    learning = Learning(network, spec, run, total=len(batches))

    for batch in run.steps(batches):
        network.train()
        drawn = draw(as_inputs(data.training[batch.rows]), network, spec, generator=run.generator)
        run.log(loss=learning.descend(drawn, lambda part: losses(network, part, spec)["loss"].sum()))
        if batch.is_epoch_end:
            learning.validate(lambda: evaluate(network, data.validation, spec))
            if is_shown(batch.epoch) and data.is_images:
                with learning.averaged():
                    run.show("reconstructions", pictures(network, data.held_out, spec), caption=CAPTION)

    learning.finish()
    write_artifacts(network, data, spec, run)
    found = {"train": evaluate(network, data.training, spec), "valid": evaluate(network, data.validation, spec)}
    metrics = {f"{of}_{name}": value for of, values in found.items() for name, value in (values or {}).items()}
    variance = float(as_inputs(data.training[:EVALUATION_ROWS]).var(0, correction=0).sum()) * (spec.mask_ratio or 1.0)
    for warning in what_failed(metrics, variance=variance, sparsity_target=spec.sparsity_target):
        run.message(warning, "warn")
    return metrics


def is_shown(epoch: int) -> bool:
    """Whether to look at this epoch's reconstructions: the first, the second, the fourth, the eighth and so on."""
    return (epoch + 1).bit_count() == 1


def build_network(data: Unlabelled, spec: AutoencoderSpec) -> Network:
    """The network that the spec asks for, to fit the data; raises InvalidSpec where it cannot."""
    _check_shape(spec, data.shape)
    features, is_sparse = prod(data.shape), spec.variant == "sparse"
    if spec.transformer is not None:
        mean, std = moments(data.training)
        scaling = Scaling(tuple(mean.tolist()), tuple(std.tolist()))
        ratio = spec.mask_ratio or 0.0
        return MaskedAutoencoder(data.shape, transformer=spec.transformer, mask_ratio=ratio, scaling=scaling)
    sizes = spec.channels if spec.channels is not None else spec.hidden_sizes
    network = Autoencoder(
        data.shape,
        code_size=spec.code_size or default_code_size(features, is_sparse=is_sparse),
        sizes=sizes if sizes is not None else default_sizes(features, is_image=data.is_images, is_sparse=is_sparse),
        architecture="dense" if spec.channels is None else "convolutional",
        is_variational=spec.variant == "variational",
        is_sparse=is_sparse,
    )
    if data.mean is not None and data.std is not None:
        network.mean.copy_(data.mean)
        network.std.copy_(data.std)
    else:
        network.start_at(data.training.mean(0, dtype=torch.float64).float() / 255)
    return network


@torch.no_grad()
def evaluate(network: Network, examples: torch.Tensor | None, spec: AutoencoderSpec) -> dict[str, float] | None:
    """The mean loss, its parts and the squared error over examples, if any; the noise is the same at each call."""
    if examples is None:
        return None
    generator, device = torch.Generator().manual_seed(spec.seed + 1), device_of(network)
    sums: dict[str, torch.Tensor] = {}
    for rows in examples.split(EVALUATION_ROWS):
        drawn = to_device(draw(as_inputs(rows), network, spec, generator=generator), device)
        found = losses(network, drawn, spec)
        found["squared_error"] = squared_error(network.as_examples(found.pop("decoded")), drawn.target)
        for name, values in found.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + values.double().sum()
    return {name: float(total) / len(examples) for name, total in sums.items()}


@torch.no_grad()
def pictures(network: Network, images: torch.Tensor, spec: AutoencoderSpec) -> torch.Tensor:
    """A few images as the network saw them, then what it made of them, then as they are, where it saw less."""
    generator = torch.Generator().manual_seed(spec.seed + 1)
    network.eval()
    drawn = draw(as_inputs(images[:PICTURED]), network, spec, generator=generator)
    drawn = to_device(drawn, device_of(network))
    made = network.as_examples(losses(network, drawn, spec)["decoded"])
    if isinstance(network, MaskedAutoencoder):
        return torch.cat([network.seen(drawn.source, drawn.noise), made, drawn.target])
    return torch.cat([drawn.source, made, drawn.target] if spec.variant == "denoising" else [drawn.source, made])


def device_of(network: Network) -> torch.device:
    """Where its weights are."""
    return next(network.parameters()).device


def write_artifacts(network: Network, data: Unlabelled, spec: AutoencoderSpec, run: Run) -> None:
    """The network as the libraries open it; for images their reconstructions, and samples of a variational one."""
    if data.is_images:
        columns = min(PICTURED, len(data.held_out))
        write_grid(pictures(network, data.held_out, spec), run.artifacts / "reconstructions.png", columns=columns)
    if isinstance(network, MaskedAutoencoder):
        network.save(run.artifacts)
        return
    save_network(network, run.artifacts)
    write_onnx(network, run.artifacts)
    if network.is_image and network.log_variance is not None:
        codes = torch.randn(SAMPLES, network.code_size, generator=torch.Generator().manual_seed(spec.seed + 1))
        with torch.no_grad():
            write_grid(network.decode(codes.to(run.device)), run.artifacts / "samples.png", columns=PICTURED)
