"""Steps of a variational autoencoder on MNIST, of the sizes of PyTorch's VAE example, beside that example's loop."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from benchmarks.frame import Reading, Side
from benchmarks.steps import SEED, Shuffled, beside_plain, digits, fit, run_job, run_loop

if TYPE_CHECKING:
    import torch

    from core.networks.autoencoder import Autoencoder

BATCH, RATE, CODES, HIDDEN = 128, 1e-3, 20, 400
SPEC = {
    "method": "autoencoder",
    "variant": "variational",
    "hidden_sizes": [HIDDEN],
    "code_size": CODES,
    "batch_size": BATCH,
    "learning_rate": RATE,
    "schedule": "constant",
    "warmup": 0.0,
}


def ours(steps: int) -> Reading:
    """A job."""
    from benchmarks.data import mnist
    from core import load_model

    rate, artifacts, _ = run_job(SPEC, mnist("train-images-idx3-ubyte"), steps=steps)
    return Reading(rate, quality={"test_bound": test_bound(load_model(artifacts))})


def plain(steps: int) -> Reading:
    """The example's loop, with the fused form of its optimizer, on images in memory."""
    import torch

    torch.set_num_threads(1)
    network, images = new_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    batches = iter(Shuffled(images, BATCH))

    def step(number: int) -> None:
        optimizer.zero_grad()
        x = next(batches)
        loss = bound(network, x) / len(x)
        loss.backward()
        optimizer.step()
        total.append(loss.item())

    total: list[float] = []
    return Reading(run_loop(step, steps=steps), quality={"test_bound": test_bound(network)})


def lightning(steps: int) -> Reading:
    """The same step as Lightning has it."""
    import torch
    from lightning import LightningModule

    class VAE(LightningModule):
        def __init__(self, network: Autoencoder) -> None:
            super().__init__()
            self.network = network

        def training_step(self, x: torch.Tensor, number: int) -> torch.Tensor:
            loss = bound(self.network, x) / len(x)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=RATE, fused=True)

    torch.set_num_threads(1)
    network, images = new_network()
    rate = fit(VAE(network), Shuffled(images, BATCH), steps=steps)
    return Reading(rate, quality={"test_bound": test_bound(network)})


def new_network() -> tuple[Autoencoder, torch.Tensor]:
    """The network that a job starts from, and the images."""
    import torch

    from core.networks.autoencoder import Autoencoder

    images = digits()
    torch.manual_seed(SEED)
    network = Autoencoder(tuple(images.shape[1:]), code_size=CODES, sizes=[HIDDEN], is_variational=True)
    network.start_at(images.float().mean(0) / 255)
    return network, images


def bound(network: Autoencoder, x: torch.Tensor) -> torch.Tensor:
    """The negative evidence lower bound of a batch, summed, as the example writes it, but from logits."""
    import torch
    from torch.nn import functional

    hidden = network.encoder(x)
    mean, log_variance = network.code(hidden), network.log_variance(hidden)  # type: ignore[misc]
    codes = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
    entropy = functional.binary_cross_entropy_with_logits(network.decoder(codes), x, reduction="sum")
    divergence: torch.Tensor = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    return entropy + divergence


def test_bound(network: Any) -> float:
    """Nats a test digit, with one draw of the codes: the same for all."""
    import torch

    network.eval()
    torch.manual_seed(SEED)
    x = next(islice(digits("t10k-images-idx3-ubyte").split(10_000), 1)).float() / 255
    with torch.no_grad():
        return float(bound(network, x)) / len(x)


BENCHMARKS = [
    beside_plain(
        "autoencoder",
        what="steps of a variational autoencoder, 784-400-20, on MNIST, 128 images a step, one thread",
        goal="at most 1.02 of the plain loop's time; ahead of Lightning",
        ours=ours,
        plain=plain,
        other=Side("Lightning", lightning, packages=("lightning", "torch"), is_peer=True),
        sizes=(200, 800),
    )
]
