"""Steps of a DCGAN on MNIST beside the loop of PyTorch's DCGAN example: the same networks, losses and optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.frame import Reading, Side
from benchmarks.steps import SEED, Shuffled, beside_plain, digits, fit, recent, run_job, run_loop

if TYPE_CHECKING:
    import torch

    from core.networks.adversarial import Discriminator, Generator

BATCH, RATE, BETAS, CODES, CHANNELS = 64, 2e-4, (0.5, 0.999), 64, [32, 64]
SPEC = {
    "method": "gan",
    "variant": "dcgan",
    "batch_size": BATCH,
    "learning_rate": RATE,
    "betas": list(BETAS),
    "latent_size": CODES,
    "channels": CHANNELS,
    "schedule": "constant",
    "ema": None,
    "sample_every": 10**6,
}


def ours(steps: int) -> Reading:
    """A job."""
    from benchmarks.data import mnist

    rate, _, found = run_job(SPEC, mnist("train-images-idx3-ubyte"), steps=steps)
    last = {name: found[name][-1] for name in ("discriminator_loss", "generator_loss")}
    return Reading(rate, quality=last)


def plain(steps: int) -> Reading:
    """The example's loop, with the fused form of its optimizer, on images in memory."""
    import torch

    torch.set_num_threads(1)
    generator, discriminator, images = new_networks()
    of_discriminator, of_generator = optimizers(generator, discriminator)
    batches = iter(Shuffled(images, BATCH))
    losses: dict[str, list[float]] = {"discriminator_loss": [], "generator_loss": []}

    def step(number: int) -> None:
        discriminator.zero_grad()
        real = discriminator_loss(discriminator, next(batches), is_real=True)
        real.backward()
        painted = generator(torch.randn(BATCH, CODES))
        fake = discriminator_loss(discriminator, painted.detach(), is_real=False)
        fake.backward()
        of_discriminator.step()
        generator.zero_grad()
        loss = discriminator_loss(discriminator, painted, is_real=True)
        loss.backward()
        of_generator.step()
        losses["discriminator_loss"].append((real + fake).item())
        losses["generator_loss"].append(loss.item())

    rate = run_loop(step, steps=steps)
    return Reading(rate, quality={name: recent(values) for name, values in losses.items()})


def lightning(steps: int) -> Reading:
    """The same step with Lightning's manual optimization, as its GAN example has it."""
    import torch
    from lightning import LightningModule

    losses: dict[str, list[torch.Tensor]] = {"discriminator_loss": [], "generator_loss": []}

    class DCGAN(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.discriminator, _ = new_networks()

        def training_step(self, x: torch.Tensor, number: int) -> None:
            of_discriminator, of_generator = self.optimizers()  # type: ignore[misc]
            painted = self.generator(torch.randn(BATCH, CODES))
            self.toggle_optimizer(of_discriminator)
            real = discriminator_loss(self.discriminator, x, is_real=True)
            judged = real + discriminator_loss(self.discriminator, painted.detach(), is_real=False)
            self.manual_backward(judged)
            of_discriminator.step()
            of_discriminator.zero_grad()
            self.untoggle_optimizer(of_discriminator)
            self.toggle_optimizer(of_generator)
            loss = discriminator_loss(self.discriminator, painted, is_real=True)
            self.manual_backward(loss)
            of_generator.step()
            of_generator.zero_grad()
            self.untoggle_optimizer(of_generator)
            self.log_dict({"discriminator_loss": judged, "generator_loss": loss})
            losses["discriminator_loss"].append(judged.detach())
            losses["generator_loss"].append(loss.detach())

        def configure_optimizers(self) -> Any:
            return list(optimizers(self.generator, self.discriminator))

    torch.set_num_threads(1)
    rate = fit(DCGAN(), Shuffled(digits(), BATCH), steps=steps)
    return Reading(rate, quality={name: recent([float(each) for each in found]) for name, found in losses.items()})


def new_networks() -> tuple[Generator, Discriminator, torch.Tensor]:
    """The networks that a job starts from, and the images."""
    import torch

    from core.methods.gan import start_small
    from core.networks.adversarial import Discriminator, Generator

    images = digits()
    shape = tuple(images.shape[1:])
    torch.manual_seed(SEED)
    generator = Generator(shape, latent_size=CODES, channels=CHANNELS)
    discriminator = Discriminator(shape, channels=CHANNELS, is_normalized=True)
    start_small(generator)
    start_small(discriminator)
    return generator, discriminator, images


def optimizers(generator: Generator, discriminator: Discriminator) -> tuple[Any, Any]:
    """The discriminator's, and the generator's."""
    import torch

    judging = torch.optim.Adam(discriminator.parameters(), lr=RATE, betas=BETAS, fused=True)
    return judging, torch.optim.Adam(generator.parameters(), lr=RATE, betas=BETAS, fused=True)


def discriminator_loss(discriminator: Discriminator, images: torch.Tensor, *, is_real: bool) -> torch.Tensor:
    """The mean binary cross-entropy of what the discriminator says, from logits."""
    import torch
    from torch.nn import functional

    scores = discriminator(images)
    labels = torch.full_like(scores, float(is_real))
    loss: torch.Tensor = functional.binary_cross_entropy_with_logits(scores, labels)
    return loss


BENCHMARKS = [
    beside_plain(
        "gan",
        what="steps of a DCGAN (32 and 64 channels) on MNIST, 64 images a step, one thread",
        goal="at most 1.02 of the plain loop's time; ahead of Lightning",
        ours=ours,
        plain=plain,
        other=Side("Lightning", lightning, packages=("lightning", "torch"), is_peer=True),
        sizes=(40, 120),
    )
]
