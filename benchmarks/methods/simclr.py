"""Steps of SimCLR on CIFAR-10 beside lightly, with its own transforms, and beside a plain loop with ours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from benchmarks.frame import PEERS, Reading, Side
from benchmarks.steps import SEED, beside_plain, recent, run_job, run_loop

if TYPE_CHECKING:
    import torch

    from core.networks.image_encoder import ImageEncoder

APART = PEERS.parents[1] / "apart"
BATCH, RATE, TEMPERATURE, PROJECTION = 128, 3e-3, 0.2, 128
RESNET = {"architecture": "resnet", "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1]}
# what lightly's transform does by default to images as small as these
LIGHTLY = {
    "crop_scale": 0.08,
    "horizontal_flip": 0.5,
    "rotation": 0.0,
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "grayscale": 0.2,
    "blur": 0.0,
}
SPEC = {
    "method": "simclr",
    "architecture": RESNET,
    "augmentation": LIGHTLY,
    "temperature": TEMPERATURE,
    "projection_size": PROJECTION,
    "batch_size": BATCH,
    "learning_rate": RATE,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
}


def ours(steps: int) -> Reading:
    """A job."""
    from benchmarks.quality.simclr import cifar

    rate, _, found = run_job(SPEC, cifar("train"), steps=steps)
    return Reading(rate, quality={"loss": recent(found["loss"])})


def plain(steps: int) -> Reading:
    """The loop of lightly's example, in plain PyTorch, whose views our augmentation makes."""
    import torch
    from torch import nn

    from core.training.batches import Batches
    from core.training.views import Augmentation, draw

    torch.set_num_threads(1)
    encoder, images = new_encoder()
    width = encoder.width
    head = nn.Sequential(
        nn.Linear(width, 2 * width, bias=False),
        nn.BatchNorm1d(2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, PROJECTION),
    )
    settings = Augmentation(**LIGHTLY).for_images(tuple(images.shape[1:]))  # type: ignore[arg-type]
    batches = Batches(len(images), batch_size=BATCH, seed=SEED, steps=2 * steps + 100)

    def views(number: int) -> torch.Tensor:
        pixels = images[batches[number].rows]
        return draw(pixels.shape, settings, seed=SEED, step=number).to_views(pixels).flatten(0, 1)

    losses, step = stepping(encoder, head, views, nt_xent)
    return Reading(run_loop(step, steps=steps), quality={"loss": recent(losses)})


def lightly(steps: int) -> Reading:
    """lightly's example: its transform, head and loss; views made by its DataLoader in the process that trains."""
    import torch

    open_torchvision()
    from lightly.loss import NTXentLoss
    from lightly.models.modules.heads import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1)
    encoder, images = new_encoder()
    transform = SimCLRTransform(input_size=32, gaussian_blur=0.0, normalize=None)
    pictures = images.permute(0, 2, 3, 1).numpy()

    class Views(Dataset[Any]):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, row: int) -> Any:
            return transform(Image.fromarray(pictures[row]))

    batches = iter(DataLoader(Views(), batch_size=BATCH, shuffle=True, drop_last=True))

    def views(number: int) -> torch.Tensor:
        return torch.stack(next(batches), 1).flatten(0, 1)

    criterion = NTXentLoss(temperature=TEMPERATURE)
    head = SimCLRProjectionHead(encoder.width, 2 * encoder.width, PROJECTION)
    losses, step = stepping(encoder, head, views, lambda z: criterion(z[::2], z[1::2]))
    return Reading(run_loop(step, steps=steps), quality={"loss": recent(losses)})


def open_torchvision() -> None:
    """Let torchvision be imported, and lightly after it.

    Its wheels of the package index are built for CUDA, and their compiled operators do not load beside a torch for
    processors alone. The transforms need none of them; what is declared here is only what its import asks for.
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(library)
    sys.path.append(str(APART))


KEPT: list[Any] = []  # operators are gone when their library is


def new_encoder() -> tuple[ImageEncoder, torch.Tensor]:
    """The encoder that a job starts from, and the images."""
    import torch

    from benchmarks.quality.simclr import images_of
    from core.networks import image_encoder
    from core.networks.architectures import ResNet

    images = images_of("cifar", "train")[0]
    torch.manual_seed(SEED)
    return image_encoder.new_encoder(ResNet(**RESNET), images, size=(32, 32)), images  # type: ignore[arg-type]


def stepping(encoder: ImageEncoder, head: Any, views: Any, loss_of: Any) -> tuple[list[float], Any]:
    """The losses to come, and a step down `loss_of` the projections of `views`."""
    import torch

    parameters = [*encoder.network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)
    encoder.network.train()
    losses: list[float] = []

    def step(number: int) -> None:
        loss = loss_of(head(encoder.features(views(number))))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    return losses, step


def nt_xent(z: torch.Tensor) -> torch.Tensor:
    """As the reference code writes it (Chen et al. 2020, algorithm 1); views of an image lie side by side."""
    import torch
    from torch.nn import functional

    z = functional.normalize(z, dim=1)
    similarity = z @ z.T / TEMPERATURE
    similarity.fill_diagonal_(-torch.inf)
    return functional.cross_entropy(similarity, torch.arange(len(z)) ^ 1)


BENCHMARKS = [
    beside_plain(
        "simclr",
        what="steps of SimCLR (ResNet of three stages) on CIFAR-10, 128 images a step, one thread",
        goal="at most 1.02 of the plain loop's time, which has our augmentation; ahead of lightly, with its own",
        ours=ours,
        plain=plain,
        other=Side("lightly", lightly, packages=("torch",), is_peer=True),
        sizes=(8, 30),
    )
]
