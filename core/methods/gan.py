"""Adversarial image generation: DCGAN, WGAN-GP, and the relativistic loss with R1 and R2."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import autograd, nn
from torch.nn import functional
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from core.data.examples import write_images
from core.data.images import Images, read_images
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.networks.adversarial import Discriminator, Generator, start_small, write_onnx
from core.networks.saving import save_network
from core.registry import Example, method
from core.spec import TrainingSpec, fill, refuse
from core.training.adversarial import AdversarialWatch
from core.training.augmentation import mirrored
from core.training.batches import Batch, Batches
from core.training.devices import autocast
from core.training.gallery import Gallery
from core.training.learning import Learning
from core.training.optimization import adamw
from core.training.run import Run

Size = Annotated[int, Field(ge=1, le=4096)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Variant = Literal["relativistic", "dcgan", "wgan_gp"]

SMALLEST = 4  # pixels a side of the innermost features
WIDTHS = (32, 64, 128, 256)  # channels, from the image's edge inwards; more than four keep the last
GRIDS = 10  # a run, unless the spec says how often

# what each variant's paper, or our measurements, found to serve it
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "relativistic": {"learning_rate": 4e-3, "betas": (0.0, 0.99), "gradient_penalty": 1.0},
    "dcgan": {"learning_rate": 2e-4, "betas": (0.5, 0.999)},
    "wgan_gp": {"learning_rate": 2e-4, "betas": (0.0, 0.9), "gradient_penalty": 10.0, "critic_steps": 5},
}


class GanSpec(TrainingSpec):
    """Adversarial image generation: a generator learns to paint images that a discriminator takes for real ones."""

    method: Literal["gan"] = Field("gan", description="The training method.")
    variant: Variant = Field(
        "relativistic",
        description="The loss: relativistic with R1 and R2, non-saturating logistic (dcgan), or Wasserstein with "
        "gradient penalty (wgan_gp).",
    )
    conditional: bool = Field(False, description="Learn the classes too, so that images of a class can be asked for.")
    latent_size: Size = Field(64, description="Normal random numbers that an image is made from.")
    channels: Annotated[list[Size], Field(min_length=1, max_length=8)] | None = Field(
        None,
        description="Channels of the convolutions, from the image inwards; each halves the image. "
        "None: 32, 64, 128, 256, as many as the image can be halved.",
    )
    gradient_penalty: float | None = Field(
        None, ge=0, le=1000, description="Weight of R1 and R2 (relativistic, none: 1) or of the penalty (wgan_gp: 10)."
    )
    critic_steps: int | None = Field(
        None, ge=1, le=100, description="Steps of wgan_gp's critic for each step of the generator; none: 5."
    )
    betas: tuple[Beta, Beta] | None = Field(
        None, description="AdamW's decay rates; none: (0, 0.99), for dcgan (0.5, 0.999), for wgan_gp (0, 0.9)."
    )
    image_size: int | None = Field(
        None, ge=1, le=1024, description="Resize images to this many pixels a side; none: all are of one size."
    )
    horizontal_flip: bool = Field(False, description="Mirror half of the training images, chosen anew in each step.")
    samples: int = Field(100, ge=1, le=1000, description="Images in a grid of samples.")
    sample_every: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Steps between grids of samples, always of the same codes; none: ten in a run.",
    )
    epochs: int | None = Field(None, ge=1, le=100_000, description="Passes over the data set, instead of steps.")
    steps: int | None = Field(5000, ge=1, le=10**9, description="Steps of the generator.")
    batch_size: int = Field(64, ge=1, le=1_000_000, description="Real and as many painted images in a step.")
    learning_rate: float = Field(
        4e-3, gt=0, le=100, description="Size of a gradient step, at its peak; by default 2e-4 for dcgan and wgan_gp."
    )
    ema: float | None = Field(
        0.999, ge=0, lt=1, description="Show and keep an average of the generator that forgets by this much a step."
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_variant(cls, data: Any) -> Any:
        data = fill(data, "steps", None, when=lambda given: given.get("epochs") is not None)
        for name in ("validation", "validation_fraction", "early_stopping"):
            if isinstance(data, Mapping) and data.get(name) is not None:
                raise ValueError(f"{name} would have no effect: no loss of a GAN says how good its images are")
        for variant, recipe in RECIPES.items():
            for name, value in recipe.items():
                data = fill(data, name, value, when=lambda given, v=variant: given.get("variant", "relativistic") == v)
        return data

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.variant == "dcgan":
            refuse(self, "gradient_penalty", because="the dcgan variant has no penalty; take relativistic or wgan_gp")
        elif self.gradient_penalty is None:
            raise ValueError(f"the variant {self.variant} needs gradient_penalty")
        if self.variant != "wgan_gp":
            refuse(self, "critic_steps", because="only the wgan_gp variant makes several steps of its critic")
        elif self.critic_steps is None:
            raise ValueError("the variant wgan_gp needs critic_steps")
        if self.betas is None:
            raise ValueError("give two betas, or leave them out")
        return self


def check(spec: GanSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    if profile.examples < 2:
        raise InvalidData("a GAN needs at least two images", param="dataset")
    if spec.conditional:
        _check_classes(profile.classes or ())
    if profile.shape is None and spec.image_size is None:
        raise InvalidSpec("the images differ in size: set image_size, to 32 or 64, say", param="image_size")
    shape = profile.shape or (3,)
    sides = shape[1:] if spec.image_size is None else (spec.image_size, spec.image_size)
    channels_for(spec, (shape[0], *sides))


def _check_classes(names: Any) -> None:
    if len(names) < 2:
        raise InvalidData(
            "conditional needs two or more classes: put the images into a folder for each class, send an .npz with x "
            "and y, or leave conditional out",
            param="conditional",
        )


def channels_for(spec: GanSpec, shape: tuple[int, ...]) -> list[int]:
    """The channels of the convolutions for images of this shape; raises InvalidSpec where none will do.

    None given: as many as the image can be halved with at least SMALLEST pixels a side left, and fewer than three times
    that.
    """
    sides = shape[1:]
    if spec.channels is not None:
        if any(side % 2 ** len(spec.channels) for side in sides):
            raise InvalidSpec(
                f"{len(spec.channels)} convolutions halve an image {len(spec.channels)} times, which {_spelt(sides)} "
                f"pixels do not allow: set image_size to a multiple of {2 ** len(spec.channels)}, or fewer channels",
                param="channels",
            )
        return spec.channels
    halvings = 0
    while all(side % 2 ** (halvings + 1) == 0 and side >> (halvings + 1) >= SMALLEST for side in sides):
        halvings += 1
    if halvings == 0 or min(sides) >> halvings >= 3 * SMALLEST:
        raise InvalidSpec(
            f"images of {_spelt(sides)} pixels cannot be halved down to about {SMALLEST}: set image_size to "
            f"{_nearest_size(min(sides))}",
            param="image_size",
        )
    return [WIDTHS[min(place, len(WIDTHS) - 1)] for place in range(halvings)]


def _spelt(sides: tuple[int, ...]) -> str:
    return f"{sides[1]}x{sides[0]}"


def _nearest_size(side: int) -> int:
    sizes = [start << halvings for halvings in range(1, 9) for start in range(SMALLEST, 2 * SMALLEST)]
    return min(sizes, key=lambda size: abs(size - side))


class Draw(NamedTuple):
    """A step's images and its randomness: everything that is drawn before a network comes in."""

    real: torch.Tensor  # [batch, channels, height, width] uint8
    classes: torch.Tensor | None  # [batch] int64, of the real images and asked of the painted ones
    codes: torch.Tensor  # [batch, latent_size]
    mix: torch.Tensor | None  # [batch, 1, 1, 1] in [0, 1]: the real image's part of the blend that wgan_gp looks at


def draw(batch: Batch, data: Images, spec: GanSpec, *, generator: torch.Generator) -> Draw:
    """Prepare a step; drawn on the CPU, so that every device sees the same codes."""
    real = data.pixels[batch.rows]
    if spec.horizontal_flip:
        real = mirrored(real, generator=generator)
    classes = None if data.labels is None else data.labels[batch.rows]
    codes = torch.randn(len(real), spec.latent_size, generator=generator)
    mix = torch.rand(len(real), 1, 1, 1, generator=generator) if spec.variant == "wgan_gp" else None
    return Draw(real, classes, codes, mix)


class Shared:
    """Dcgan's painted images, with their graph, and the real ones' scores, from one network's turn to the other's.

    Both networks learn from the same images, which are painted once (as in Radford et al.'s own code), where a step's
    batch is one part: the graphs of several would not be flat in memory.
    """

    def __init__(self) -> None:
        self._kept: tuple[torch.Tensor, torch.Tensor] | None = None

    def keep(self, images: torch.Tensor, real: torch.Tensor) -> None:
        """For the generator's turn."""
        self._kept = images, real.detach()

    def drop(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What was kept, once."""
        kept, self._kept = self._kept, None
        return kept


class Judgement(NamedTuple):
    """What a discriminator says of pairs of images, each [batch]."""

    real: torch.Tensor
    painted: torch.Tensor
    penalty: torch.Tensor


def discriminator_losses(real: torch.Tensor, painted: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Of each pair of scores, [batch], without penalties.

    relativistic: -log sigmoid(real - painted) (Jolicoeur-Martineau 2019, paired as in Huang et al. 2024);
    dcgan: -log sigmoid(real) - log(1 - sigmoid(painted)) (Goodfellow et al. 2014); wgan_gp: painted - real.
    """
    match variant:
        case "relativistic":
            return functional.softplus(painted - real)
        case "dcgan":
            return functional.softplus(-real) + functional.softplus(painted)
        case "wgan_gp":
            return painted - real


def generator_losses(real: torch.Tensor, painted: torch.Tensor, variant: Variant) -> torch.Tensor:
    """Of each pair of scores, [batch]: the discriminator's with the roles exchanged; of dcgan, non-saturating."""
    match variant:
        case "relativistic":
            return functional.softplus(real - painted)
        case "dcgan":
            return functional.softplus(-painted)
        case "wgan_gp":
            return -painted


def gradient_of(scores: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Each score's gradient by its image, [batch, features], to be differentiated again.

    By pixels from -1 to 1, as the papers have them, of images in [0, 1].
    """
    (gradient,) = autograd.grad(scores.float().sum(), images, create_graph=True)
    return gradient.flatten(1) / 2


def judge(discriminator: Discriminator, drawn: Draw, painted: torch.Tensor, spec: GanSpec) -> Judgement:
    """The scores of the real and the painted images, and each pair's penalty.

    relativistic: gradient_penalty / 2 times the squared gradients at the real image (R1, Mescheder et al. 2018) and at
    the painted one (R2); wgan_gp: gradient_penalty times (the gradient's norm at a blend of both - 1)^2 (Gulrajani et
    al. 2017).
    """
    real, count, weight = as_inputs(drawn.real), len(painted), spec.gradient_penalty or 0.0
    if spec.variant == "dcgan":  # one after the other, because batch normalization would mix them
        scores = discriminator(real, drawn.classes), discriminator(painted, drawn.classes)
        return Judgement(*scores, penalty=torch.zeros_like(scores[0]))
    if drawn.mix is None:
        images = torch.cat([real, painted]).requires_grad_()
        scores = discriminator(images, repeated(drawn.classes, 2))
        squared = gradient_of(scores, images).square().sum(1)
        return Judgement(scores[:count], scores[count:], weight / 2 * (squared[:count] + squared[count:]))
    blend = (drawn.mix * real + (1 - drawn.mix) * painted).requires_grad_()
    scores = discriminator(torch.cat([real, painted, blend]), repeated(drawn.classes, 3))
    norms = gradient_of(scores[2 * count :], blend).norm(dim=1)
    return Judgement(scores[:count], scores[count : 2 * count], weight * (norms - 1).square())


def repeated(classes: torch.Tensor | None, times: int) -> torch.Tensor | None:
    """The classes for so many sets of images, one after the other."""
    return None if classes is None else classes.repeat(times)


def as_inputs(pixels: torch.Tensor) -> torch.Tensor:
    """What a discriminator takes: pixels in [0, 1]."""
    return pixels.float() / 255


@method(
    reads=(Kind.IMAGES,),
    paper="Goodfellow et al. 2014, Generative adversarial nets; dcgan: Radford et al. 2016; wgan_gp: Gulrajani et al. "
    "2017; relativistic: Huang et al. 2024 (R3GAN); classes: Miyato & Koyama 2018",
    opens_with="safetensors, onnxruntime (generator.onnx: codes, and classes where it has them, to images)",
    example=Example(
        spec={
            "method": "gan",
            "conditional": True,
            "channels": [4, 8],
            "latent_size": 8,
            "steps": 20,
            "batch_size": 16,
            "horizontal_flip": True,
            "samples": 4,
        },
        write_dataset=write_images,
    ),
    check=check,
)
def train(spec: GanSpec, run: Run) -> Mapping[str, float]:
    """Descend the discriminator's loss and the generator's in turn; see `judge` and the losses for what they are."""
    data = read_data(spec, run)
    generator, discriminator = new_networks(data, spec, run)
    critic_steps = spec.critic_steps or 1
    total = generator_steps(spec, examples=len(data.pixels))
    batches = Batches(len(data.pixels), batch_size=spec.batch_size, seed=spec.seed, steps=total * critic_steps)
    painting = Learning(
        generator,
        spec,
        run,
        total=total,
        name="generator",
        optimizer=adamw(generator.parameters(), spec, **betas(spec)),
    )
    judging = Learning(
        discriminator,
        spec.model_copy(update={"ema": None, "compile": spec.compile and spec.variant == "dcgan"}),
        run,
        total=len(batches),
        name="discriminator",
        optimizer=adamw(discriminator.parameters(), spec, **betas(spec)),
    )
    watch_gradient(painting.optimizer, run)
    run.watch = AdversarialWatch(total=total)
    gallery = Gallery.of(data, samples=spec.samples, latent_size=spec.latent_size, seed=spec.seed + 1)

    shared = Shared()

    def discriminator_loss(part: Draw) -> torch.Tensor:
        is_shared = spec.variant == "dcgan" and judging.accumulate == painting.accumulate == 1
        with autocast(spec.precision, run.device):
            with torch.set_grad_enabled(is_shared):
                images = generator(part.codes, part.classes)
            real, painted, penalty = judge(discriminator, part, images.detach().float(), spec)
        shared.keep(images, real) if is_shared else shared.drop()
        losses = discriminator_losses(real.float(), painted.float(), spec.variant)
        run.log(discriminator_loss=losses.mean(), discriminator_accuracy=(real > painted).float().mean())
        return (losses + penalty.float()).sum()

    def generator_loss(part: Draw) -> torch.Tensor:
        with autocast(spec.precision, run.device), frozen(discriminator):
            images, real = shared.drop() or (generator(part.codes, part.classes), None)
            painted = discriminator(images, part.classes)
            if real is None:
                with torch.no_grad():
                    real = discriminator(as_inputs(part.real), part.classes)
        losses = generator_losses(real.float(), painted.float(), spec.variant)
        run.log(generator_loss=losses.mean(), generator_accuracy=(painted > real).float().mean())
        return losses.sum()

    for step in run.steps(range(total)):
        generator.train()
        discriminator.train()
        for batch in batches[step * critic_steps : (step + 1) * critic_steps]:
            drawn = draw(batch, data, spec, generator=run.generator)
            judging.descend(drawn, discriminator_loss)
        if spec.variant != "dcgan":
            drawn = draw(batch, data, spec, generator=run.generator)
        painting.descend(drawn, generator_loss)
        if (step + 1) % grid_interval(spec, total) == 0 and step + 1 < total:
            with painting.averaged():
                gallery.show(generator, run)

    painting.finish()
    judging.finish()
    return write_results(generator, discriminator, gallery, run)


def read_data(spec: GanSpec, run: Run) -> Images:
    """The images, and their classes where these are learned."""
    data = read_images(run.dataset, size=spec.image_size)
    if not spec.conditional:
        return Images(data.pixels, None, ())
    _check_classes(data.class_names)
    return data


def new_networks(data: Images, spec: GanSpec, run: Run) -> tuple[Generator, Discriminator]:
    """A generator and a discriminator with fresh weights, to fit the images."""
    shape = tuple(data.pixels.shape[1:])
    channels = channels_for(spec, shape)
    classes = len(data.class_names)
    generator = Generator(shape, latent_size=spec.latent_size, channels=channels, classes=classes)
    is_normalized = spec.variant == "dcgan"
    discriminator = Discriminator(shape, channels=channels, classes=classes, is_normalized=is_normalized)
    if spec.variant == "dcgan":
        start_small(generator)
        start_small(discriminator)
    return generator.to(run.device), discriminator.to(run.device)


def generator_steps(spec: GanSpec, *, examples: int) -> int:
    """The spec's steps, or those in which the discriminator sees every image `epochs` times."""
    if spec.steps is not None:
        return spec.steps
    return -(-len(Batches.of(examples, spec)) // (spec.critic_steps or 1))


def grid_interval(spec: GanSpec, total: int) -> int:
    """Steps between grids of samples."""
    return spec.sample_every or max(1, total // GRIDS)


def betas(spec: GanSpec) -> dict[str, Any]:
    """The spec's decay rates, as an optimizer takes them."""
    return {"betas": spec.betas}


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within it, the network's weights take no gradient from what it computes."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def watch_gradient(optimizer: Optimizer, run: Run) -> None:
    """Log the norm of each gradient that the optimizer steps along."""

    def log(*_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        run.log(generator_gradient=get_total_norm(gradients))

    optimizer.register_step_pre_hook(log)


def write_results(generator: Generator, discriminator: Discriminator, gallery: Gallery, run: Run) -> dict[str, float]:
    """Write both networks, the generator's graph and a grid of samples; answers the last metrics."""
    shutil.copyfile(gallery.show(generator, run), run.artifacts / "samples.png")
    run.flush_log()
    save_network(generator, run.artifacts)
    save_network(discriminator, run.artifacts / "discriminator")
    write_onnx(generator, run.artifacts / "generator.onnx")
    return run.history.latest()
