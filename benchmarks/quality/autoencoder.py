"""What autoencoders reach on MNIST: squared error, denoising, evidence, sparsity, and use to a classifier."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.data import mnist
from benchmarks.quality import Figure
from benchmarks.quality.training import trained
from core import load_model
from core.data.images import read_images
from core.networks.opening import open_classifier

DRAWS = 30
LABELLED = 100
UNLABELLED = 10_000
FEW = 300
MASKED: dict[str, Any] = {
    "variant": "masked",
    "mask_ratio": 0.5,
    "transformer": {"patch_size": 7, "layers": 3, "hidden_size": 64, "decoder_layers": 1, "decoder_size": 64},
    "epochs": 12,
    "batch_size": 64,
    "learning_rate": 2e-3,
}
TUNING: dict[str, Any] = {
    "method": "fine_tuning",
    "task": "image_classification",
    "epochs": 40,
    "learning_rate": 1e-3,
    "jitter": 2,
}


def measure() -> list[Figure]:
    """Train a network of each variant and measure it on the test digits."""
    (error, deep_folder), (clean_error, denoising_folder) = deep(), denoising()
    deep_codes, pixels = probes(deep_folder)
    denoising_codes, _ = probes(denoising_folder)
    return [
        Figure(
            "squared error per test digit, 784-1000-500-250-30, 20 epochs",
            "at most 4.6",
            f"{error:.2f}",
            f"PCA with 30 components: {pca_error(30):.2f}; Hinton & Salakhutdinov 2006: 3.00",
        ),
        Figure("the same from digits with 30 % of pixels masked, 10 epochs", "at most 8.7", f"{clean_error:.2f}"),
        Figure(
            f"linear probe on codes with {LABELLED} labels, mean of {DRAWS} draws",
            "above raw pixels",
            f"plain {deep_codes:.1%}, denoising {denoising_codes:.1%}",
            f"raw pixels {pixels:.1%}; each with the best of four penalties",
        ),
        Figure(
            "negative ELBO, 20 codes, binarised digits, 20 epochs", "at most 97.0 nats", f"{variational():.2f} nats"
        ),
        *sparse(),
        *masked(),
    ]


def train_on_mnist(**spec: Any) -> tuple[dict[str, float], Path]:
    """Train on the 60,000 digits, validate on the 10,000."""
    files = {"dataset": mnist("train-images-idx3-ubyte"), "validation": mnist("t10k-images-idx3-ubyte")}
    return trained({"method": "autoencoder", **spec}, **files)


def deep() -> tuple[float, Path]:
    """The default network with 30 codes."""
    metrics, folder = train_on_mnist(code_size=30, epochs=20)
    return metrics["valid_squared_error"], folder


def denoising() -> tuple[float, Path]:
    """The default network, denoising."""
    metrics, folder = train_on_mnist(variant="denoising", code_size=30, epochs=10)
    return metrics["valid_squared_error"], folder


def variational() -> float:
    """The variational network; pixels drawn from their brightness (Salakhutdinov & Murray 2008)."""
    spec = {"code_size": 20, "hidden_sizes": [500, 500], "learning_rate": 1e-3, "epochs": 20}
    return train_on_mnist(variant="variational", binarize=True, **spec)[0]["valid_loss"]


def sparse() -> list[Figure]:
    """The sparse network: how many of its units are active, and a probe on them."""
    metrics, folder = train_on_mnist(variant="sparse", epochs=5)
    codes, pixels = probes(folder)
    return [
        Figure(
            "sparse, 256 codes, 5 epochs: mean activation, and units above 0.1",
            "target 0.05",
            f"{metrics['valid_activation']:.3f}, {metrics['valid_active_fraction']:.1%}",
            f"squared error {metrics['valid_squared_error']:.2f}",
        ),
        Figure(
            f"sparse: linear probe on codes with {LABELLED} labels, mean of {DRAWS} draws",
            "above raw pixels",
            f"{codes:.1%}",
            f"raw pixels {pixels:.1%}",
        ),
    ]


def masked() -> list[Figure]:
    """A masked autoencoder of unlabelled digits, fine-tuned with few labels, beside the same network from scratch."""
    folder = Path(tempfile.mkdtemp(prefix="quality-"))
    x, y = read_images(mnist("train-images-idx3-ubyte")).pixels, labels_of("train-labels-idx1-ubyte")
    np.save(folder / "unlabelled.npy", x[:UNLABELLED].numpy())
    _, base = trained({"method": "autoencoder", **MASKED}, dataset=folder / "unlabelled.npy")
    found: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        rows = np.random.default_rng(seed).choice(UNLABELLED, FEW, replace=False)
        np.savez(folder / "few.npz", x=x.numpy()[rows], y=y[rows])
        for is_fresh in (False, True):
            tuned = trained({**TUNING, "reinitialize": is_fresh, "seed": seed}, dataset=folder / "few.npz", base=base)
            found[is_fresh].append(accuracy(tuned[1]))
            print(is_fresh, found[is_fresh][-1], file=sys.stderr, flush=True)
    return [
        Figure(
            f"masked, {UNLABELLED:,} digits: test accuracy after fine-tuning with {FEW} labels, mean of 3 draws",
            "above the same from scratch",
            f"{np.mean(found[False]):.1%}",
            f"from scratch {np.mean(found[True]):.1%}",
        )
    ]


def accuracy(folder: Path) -> float:
    """Of a classifier, on the test digits."""
    classifier = open_classifier(folder, param="base")
    with torch.no_grad():
        blocks = read_images(mnist("t10k-images-idx3-ubyte")).pixels.split(1000)
        guesses = torch.cat([classifier.logits(block).argmax(1) for block in blocks]).numpy()
    names = np.array(classifier.class_names).astype(int)
    return float((names[guesses] == labels_of("t10k-labels-idx1-ubyte")).mean())


def pca_error(n_components: int) -> float:
    """What principal components leave of the test digits."""
    spec = {"method": "pca", "n_components": n_components}
    network: Any = load_model(trained(spec, dataset=mnist("train-images-idx3-ubyte"))[1])
    x = pixels_of("t10k-images-idx3-ubyte")
    with torch.no_grad():
        return float((network.inverse(network(x)) - x).square().sum() / len(x))


def pixels_of(name: str) -> torch.Tensor:
    """MNIST's images in [0, 1]."""
    return read_images(mnist(name)).pixels.float() / 255


def labels_of(name: str) -> np.ndarray[Any, Any]:
    """MNIST's labels; eight bytes come before them."""
    return np.frombuffer(mnist(name).read_bytes(), np.uint8, offset=8)


def probes(folder: Path) -> tuple[float, float]:
    """Test accuracy of a linear classifier on codes, and on pixels."""
    network: Any = load_model(folder)
    train, test = pixels_of("train-images-idx3-ubyte"), pixels_of("t10k-images-idx3-ubyte")
    targets = labels_of("train-labels-idx1-ubyte"), labels_of("t10k-labels-idx1-ubyte")
    with torch.no_grad():
        codes = network.encode(train), network.encode(test)
    scale = codes[0].std(0)
    of_codes = probe((codes[0] / scale).numpy(), (codes[1] / scale).numpy(), *targets)
    return of_codes, probe(train.flatten(1).numpy(), test.flatten(1).numpy(), *targets)


def probe(x: Any, x_test: Any, y: Any, y_test: Any) -> float:
    """Mean accuracy over draws of the labelled digits, with the penalty that serves best."""
    draws = [np.random.default_rng(draw).choice(len(x), LABELLED, replace=False) for draw in range(DRAWS)]
    means = []
    for penalty in (0.01, 0.1, 1.0, 10.0):
        classifier = LogisticRegression(C=penalty, max_iter=2000)
        means.append(np.mean([classifier.fit(x[rows], y[rows]).score(x_test, y_test) for rows in draws]))
    return float(max(means))
