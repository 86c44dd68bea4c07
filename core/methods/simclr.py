"""Contrastive pretraining of an image encoder: two views of one image are to be more alike than views of two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from core.data.examples import write_images
from core.data.images import read_images
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.networks.architectures import ResNet, ViT, check_image_shape
from core.networks.image_encoder import ImageEncoder, new_encoder, open_encoder
from core.networks.projection_head import ProjectionHead
from core.networks.saving import load_network, save_network
from core.registry import Example, method
from core.spec import ModelReference, TrainingSpec, fill, model_field, refuse
from core.training.batches import Batches, split
from core.training.contrast import measures, other_view
from core.training.devices import autocast
from core.training.lars import LARS
from core.training.learning import Learning
from core.training.optimization import adamw
from core.training.parts import to_device
from core.training.probe import Images, Probe, neighbours
from core.training.run import Run
from core.training.views import Augmentation, Draws, draw

LEAST_SIDE = 32  # a ResNet's stem leaves a quarter of it
HEAD = "projection_head"  # folder of the head, in the artifacts
SHOWN = 10  # images whose views are shown, or whose neighbours
NEAREST = 4
PROBES = 8  # times that features are judged in a run, about
FEW = 64  # images in a batch, below which there is too little to tell an image apart from
COLLAPSED = 0.05  # of the spread of representations that point everywhere


class SimCLRSpec(TrainingSpec):
    """Contrastive pretraining of an image encoder (ResNet or ViT) on images without classes."""

    method: Literal["simclr"] = Field("simclr", description="The training method.")
    base: ModelReference | None = model_field(
        None, description="An encoder to go on with: of an earlier simclr job, or a ResNet or ViT of transformers."
    )
    architecture: Annotated[ResNet | ViT, Field(discriminator="architecture")] | None = Field(
        None, description="The encoder; none: a resnet of three stages, or the base's."
    )
    image_size: int | None = Field(
        None, ge=8, le=1024, description="Resize images to this many pixels a side; none: all are of one size."
    )
    input_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="Pixels a side that views are scaled to for the encoder; none: their own, but 32 at least.",
    )
    augmentation: Augmentation = Field(
        default_factory=Augmentation, description="How the two views of an image differ."
    )
    temperature: float = Field(
        0.2, gt=0, le=10, description="Softness of the contrast: the lower, the more the most alike images count."
    )
    projection_size: int | None = Field(
        None, ge=2, le=16_384, description="Numbers that the loss compares, made by the projection head; none: 128."
    )
    hidden_size: int | None = Field(
        None, ge=2, le=16_384, description="Width of the projection head's hidden layer; none: twice the features'."
    )
    optimizer: Literal["adamw", "lars"] = Field(
        "adamw", description="AdamW, or LARS, which keeps batches of thousands stable."
    )
    momentum: float | None = Field(None, ge=0, lt=1, description="Momentum of LARS; none: 0.9.")
    epochs: int | None = Field(100, ge=1, le=100_000, description="Passes over the data set.")
    batch_size: int = Field(256, ge=2, le=1_000_000, description="Images that a gradient step contrasts.")
    accumulate: int = Field(
        1,
        ge=1,
        le=4096,
        description="Parts a batch is encoded in, to use less memory; the loss still contrasts the whole batch.",
    )
    learning_rate: float = Field(
        3e-3,
        gt=0,
        le=100,
        description="Size of a gradient step, at its peak; lars: 0.075 times the root of batch_size.",
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")
    weight_decay: float = Field(1e-4, ge=0, le=10, description="Decay of weights; biases and normalisations have none.")

    @model_validator(mode="before")
    @classmethod
    def _settings_of_an_optimizer(cls, data: Any) -> Any:
        def is_lars(given: Mapping[str, Any]) -> bool:
            return given.get("optimizer") == "lars"

        data = fill(data, "momentum", 0.9, when=is_lars)
        if isinstance(data, Mapping) and isinstance(size := data.get("batch_size", 256), int) and 0 < size < 2**53:
            data = fill(data, "learning_rate", round(0.075 * math.sqrt(size), 6), when=is_lars)
        return data

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.optimizer != "lars":
            refuse(self, "momentum", because=f"the optimizer is {self.optimizer}")
        elif self.momentum is None:
            raise ValueError("optimizer lars needs momentum")
        if self.base is not None:
            refuse(self, "architecture", "input_size", because="the base has its own")
        return self


def check(spec: SimCLRSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    if profile.examples < 2:
        raise InvalidData("contrast needs at least two images", param="dataset")
    if profile.shape is None:
        if spec.image_size is None:
            raise InvalidSpec("the images differ in size: set image_size", param="image_size")
        return
    channels, *size = profile.shape
    size = size if spec.image_size is None else [spec.image_size, spec.image_size]
    spec.augmentation.for_images((channels, *size))
    if spec.base is None:
        check_image_shape(spec.architecture or ResNet(), (channels, *input_size(spec, size)))


def input_size(spec: SimCLRSpec, size: Sequence[int]) -> tuple[int, int]:
    """Height and width that the encoder sees of images of `size` (height, width)."""
    if spec.input_size is not None:
        return spec.input_size, spec.input_size
    factor = max(1.0, LEAST_SIDE / min(size))
    return round(size[0] * factor), round(size[1] * factor)


def nt_xent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy of each view, [2 n], of `z` [n, 2, width] (Chen et al. 2020, eq. 1).

    Each view has to name the other one of its image among all other views of the batch, by its cosine.
    """
    z = functional.normalize(z.float(), dim=-1).flatten(0, 1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return functional.cross_entropy(similarity, other_view(len(z), z.device), reduction="none")


class Batch(NamedTuple):
    """Images and what was drawn for their views; parts are cut across both."""

    pixels: torch.Tensor  # [n, channels, height, width] in bytes
    draws: Draws


@dataclass(frozen=True)
class Model:
    """The encoder that is kept, and the head that the loss is taken behind."""

    encoder: ImageEncoder
    head: ProjectionHead
    network: nn.ModuleDict  # of both
    precision: str

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Features [n, width] of images [n, channels, height, width], bytes or in [0, 1]."""
        with autocast(self.precision, self.device):
            return self.encoder.features(images).float()

    def represent(self, batch: Batch) -> torch.Tensor:
        """Features [n, 2, width] of the views of a batch on the device."""
        views = batch.draws.to_views(batch.pixels)
        return self.encode(views.flatten(0, 1)).view(len(views), 2, -1)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """What the loss compares, [n, 2, projection_size], of features [n, 2, width]."""
        with autocast(self.precision, self.device):
            z: torch.Tensor = self.head(features.flatten(0, 1))
        return z.float().view(len(features), 2, -1)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.head.parameters()).device

    def save(self, folder: Path) -> None:
        """Write the encoder, and the head in a folder of its own."""
        self.encoder.save(folder)
        save_network(self.head, folder / HEAD)


@method(
    reads=(Kind.IMAGES,),
    paper="Chen et al. 2020, A simple framework for contrastive learning of visual representations; large batches: Gao "
    "et al. 2021, Scaling deep contrastive learning batch size under memory limited setup; You et al. 2017 (LARS)",
    opens_with="transformers (AutoModel, and AutoModelForImageClassification to fine-tune); the head in "
    "projection_head/: safetensors",
    example=Example(
        spec={
            "method": "simclr",
            "architecture": {"architecture": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16]},
            "epochs": 3,
            "batch_size": 32,
            "accumulate": 2,
            "validation_fraction": 0.25,
        },
        write_dataset=write_images,
    ),
    check=check,
)
def train(spec: SimCLRSpec, run: Run) -> Mapping[str, float]:
    """Descend the contrastive loss of two new views of each image, batch by batch; no class is looked at."""
    training, held_out = read_data(spec, run)
    model = new_model(spec, training, run)
    augmentation = spec.augmentation.for_images(training.pixels.shape[1:])
    batches = Batches.of(len(training), spec, drop_last=True)
    optimizer = new_optimizer(model.network, spec)
    learning = Learning(model.network, spec, run, total=len(batches), optimizer=optimizer)
    probe = Probe.of(training, held_out)

    def loss_of(features: torch.Tensor) -> torch.Tensor:
        z = model.project(features)
        run.log(**measures(z))
        return nt_xent(z, spec.temperature).mean()

    if run.step == 0:
        warn_of_few(batches, model, spec, run)
        show_views(training, augmentation, spec, run)
        judge(probe, model, learning, run)

    is_collapsed = False
    for batch in run.steps(batches):
        model.network.train()
        views = views_of(training, batch.rows, augmentation, seed=spec.seed, step=batch.step)
        run.log(loss=learning.descend_together(views, model.represent, loss_of))
        if batch.is_epoch_end and held_out is not None:
            learning.validate(lambda: evaluate(model, held_out, augmentation, spec))
        if is_judged(batch.step, total=len(batches)):
            is_collapsed = is_collapsed or warn_of_collapse(run)
            judge(probe, model, learning, run)

    learning.finish()
    judge(probe, model, learning, run)
    model.save(run.artifacts)
    last = {} if held_out is None else evaluate(model, held_out, augmentation, spec)
    return {**summary(run), **{f"valid_{name}": value for name, value in last.items()}}


def read_data(spec: SimCLRSpec, run: Run) -> tuple[Images, Images | None]:
    """What to learn from and what to validate on, a file or a fraction, with classes for the probe where they are."""
    read = read_images(run.dataset, size=spec.image_size)
    training = Images(read.pixels, read.labels)
    held_out = None
    if spec.validation is not None:
        other = read_images(run.inputs["validation"], size=spec.image_size, channels=read.pixels.shape[1])
        if other.pixels.shape[1:] != read.pixels.shape[1:]:
            raise InvalidData(
                f"validation images have the shape {list(other.pixels.shape[1:])}, those of the data set "
                f"{list(read.pixels.shape[1:])}: set image_size, or make them alike",
                param="validation",
            )
        held_out = Images(other.pixels, other.labels if other.class_names == read.class_names else None)
    elif spec.validation_fraction is not None:
        rows, others = split(len(training), fraction=spec.validation_fraction, seed=spec.seed)
        training, held_out = training.rows(rows), training.rows(others)
    if len(training) < 2:
        raise InvalidData("contrast needs at least two images to learn from", param="dataset")
    return training, held_out


def new_model(spec: SimCLRSpec, training: Images, run: Run) -> Model:
    """The encoder that is asked for, fresh or the base's, and a head; the base's where the spec asks for no other."""
    if spec.base is None:
        size = input_size(spec, training.pixels.shape[2:])
        encoder, head = new_encoder(spec.architecture or ResNet(), training.pixels, size=size), None
    else:
        encoder, head = open_encoder(run.inputs["base"], param="base"), None
        if spec.projection_size is None and spec.hidden_size is None:
            head = head_of(run.inputs["base"])
    if head is None:
        width = encoder.width
        head = ProjectionHead(width, spec.hidden_size or 2 * width, spec.projection_size or 128)
    network = nn.ModuleDict({"encoder": encoder.network, "head": head}).to(run.device)
    return Model(encoder, head, network, spec.precision)


def head_of(base: Path) -> ProjectionHead | None:
    """The head that an earlier job left beside its encoder, if it did."""
    head = load_network(base / HEAD) if (base / HEAD / "config.json").exists() else None
    return head if isinstance(head, ProjectionHead) else None


def new_optimizer(network: nn.Module, spec: SimCLRSpec) -> torch.optim.Optimizer:
    """LARS or AdamW; biases and the weights of normalisations do not decay."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if spec.optimizer == "lars":
        return LARS(learning, lr=spec.learning_rate, momentum=spec.momentum or 0.0, weight_decay=spec.weight_decay)
    matrices, vectors = ([each for each in learning if (each.dim() > 1) is wanted] for wanted in (True, False))
    return adamw([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], spec)


def views_of(images: Images, rows: torch.Tensor, settings: Augmentation, *, seed: int, step: int) -> Batch:
    """These images, and the views of them that a step sees."""
    pixels = images.pixels[rows]
    return Batch(pixels, draw(pixels.shape, settings, seed=seed, step=step))


@torch.no_grad()
def evaluate(model: Model, held_out: Images, settings: Augmentation, spec: SimCLRSpec) -> dict[str, float]:
    """Loss and measures of whole batches of held-out images, always with the same views."""
    count = max(1, len(held_out) // spec.batch_size)
    found = []
    for number, rows in enumerate(torch.arange(len(held_out)).split(spec.batch_size)[:count]):
        views = views_of(held_out, rows, settings, seed=spec.seed + 1, step=number)
        z = model.project(model.represent(to_device(views, model.device)))
        found.append({"loss": nt_xent(z, spec.temperature).mean(), **measures(z)})
    return {name: float(sum(each[name] for each in found)) / count for name in found[0]}


def is_judged(step: int, *, total: int) -> bool:
    """Whether features are judged after `step`: PROBES times in a run, the end aside."""
    return (step + 1) % -(-total // PROBES) == 0 and step + 1 < total


def judge(probe: Probe, model: Model, learning: Learning, run: Run) -> None:
    """Report what the features are worth as they are now, and show which images they put side by side."""
    model.network.eval()
    with learning.averaged():
        if probe.has_classes:
            run.report(probe_accuracy=probe.accuracy(model.encode))
        if len(probe.judged) > 1:
            near = neighbours(probe.judged.pixels, model.encode, queries=SHOWN, nearest=NEAREST)
            run.show("neighbours", near, caption="Images above those whose features are nearest to theirs")


def show_views(images: Images, settings: Augmentation, spec: SimCLRSpec, run: Run) -> None:
    """Let people see what the encoder is to take for the same thing."""
    shown = views_of(images, torch.arange(min(SHOWN, len(images))), settings, seed=spec.seed, step=0)
    views = shown.draws.to_views(shown.pixels)
    pictures = torch.cat([shown.pixels.float() / 255, views[:, 0], views[:, 1]])
    run.show("views", pictures, caption="Images above two of their views, which are to have the same features")


def warn_of_few(batches: Batches, model: Model, spec: SimCLRSpec, run: Run) -> None:
    """Say where a batch is too small to contrast, or its parts to be normalised alike."""
    if batches.batch_size < FEW:
        run.message(
            f"Each step contrasts {batches.batch_size} images, which is little to tell one from: {FEW} or more in "
            "batch_size learn better features (accumulate keeps the memory flat)",
            "warn",
        )
    if spec.accumulate > 1 and any(isinstance(module, nn.BatchNorm2d) for module in model.encoder.network.modules()):
        run.message(
            "The loss contrasts whole batches; the encoder's batch normalisation takes its statistics from each of "
            f"the {spec.accumulate} parts by itself"
        )


def warn_of_collapse(run: Run) -> bool:
    """Whether all images have come to be represented by nearly the same; says so."""
    spread = run.history.latest().get("spread", 1.0)
    if is_collapsed := spread < COLLAPSED:
        run.message(
            f"All representations are nearly the same (spread {spread:.3f} of 1): the encoder has collapsed. Lower "
            "learning_rate, set warmup, or raise batch_size or temperature",
            "warn",
        )
    return is_collapsed


def summary(run: Run) -> dict[str, float]:
    """The last of what was logged, and what the features of random weights were worth at the start."""
    probes = [value for _, value in run.history.series.get("probe_accuracy", [])]
    if len(probes) > 1 and probes[-1] <= probes[0]:
        run.message(
            f"The features are worth no more than those at the start (probe_accuracy {probes[-1]:.3f} after "
            f"{probes[0]:.3f}): train longer, or look at the views for what they leave of an image",
            "warn",
        )
    latest = {name: value for name, value in run.history.latest().items() if not name.startswith("valid_")}
    return {**latest, "probe_accuracy_at_start": probes[0]} if probes else latest
