"""Adversarial networks: a generator that paints images from random codes, and a discriminator that judges images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from pathlib import Path

import torch
from torch import nn

from core.networks.onnx_graph import Stage, nodes_of, write_graph
from core.networks.saving import network

KERNEL = 4  # with stride 2 and padding 1 it halves a picture, or doubles it
SLOPE = 0.2  # of the discriminator's leaky units (Radford et al. 2016)


@network("generator")
class Generator(nn.Module):
    """Images from codes drawn from N(0, 1): a dense layer, then convolutions that double the picture (Radford 2016).

    `shape`: (channels, height, width) of the images, both sides divisible by 2 ** len(channels). `channels`: from the
    picture's edge inwards, as the discriminator has them. `classes`: none: 0; else each image is of a class that is
    asked for, whose embedding is appended to the code.
    """

    def __init__(self, shape: Sequence[int], *, latent_size: int, channels: Sequence[int], classes: int = 0) -> None:
        super().__init__()
        self.config = {
            "shape": list(shape),
            "latent_size": latent_size,
            "channels": list(channels),
            "classes": classes,
        }
        self.shape = tuple(shape)
        self.latent_size = latent_size
        self.embedding = nn.Embedding(classes, latent_size) if classes else None
        smallest = smallest_map(shape, channels)
        width = latent_size if self.embedding is None else 2 * latent_size
        layers: list[nn.Module] = [nn.Linear(width, prod(smallest), bias=False), nn.Unflatten(1, smallest)]
        for count, following in pairwise([*channels[::-1], shape[0]]):
            layers += [nn.BatchNorm2d(count), nn.ReLU()]
            layers += [nn.ConvTranspose2d(count, following, KERNEL, stride=2, padding=1, bias=following == shape[0])]
        self.layers = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, codes: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Images [rows, *shape] in [0, 1] from `codes` [rows, latent_size] and, where it has them, `classes` [rows]."""
        if self.embedding is not None:
            if classes is None:
                raise ValueError("this generator needs the class of each image: forward(codes, classes)")
            codes = torch.cat([codes, self.embedding(classes)], 1)
        images: torch.Tensor = self.layers(codes)
        return images


@network("discriminator")
class Discriminator(nn.Module):
    """A score for each image, higher for real ones: convolutions that halve the picture, then a dense layer.

    `shape`, `channels`, `classes`: as the generator has them. Of a class, the score gains the inner product of its
    embedding with the image's features (Miyato & Koyama 2018). `is_normalized`: batch normalization after all
    convolutions but the first, which a penalty of single images' gradients rules out.
    """

    def __init__(
        self, shape: Sequence[int], *, channels: Sequence[int], classes: int = 0, is_normalized: bool = False
    ) -> None:
        super().__init__()
        self.config = {
            "shape": list(shape),
            "channels": list(channels),
            "classes": classes,
            "is_normalized": is_normalized,
        }
        layers: list[nn.Module] = []
        for count, following in pairwise([shape[0], *channels]):
            layers.append(nn.Conv2d(count, following, KERNEL, stride=2, padding=1))
            if is_normalized and count != shape[0]:
                layers.append(nn.BatchNorm2d(following))
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        features = prod(smallest_map(shape, channels))
        self.head = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features) if classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=features**-0.5)

    def forward(self, images: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Scores [rows] of `images` [rows, *shape] in [0, 1]."""
        features = self.layers(2 * images - 1)
        scores: torch.Tensor = self.head(features)[:, 0]
        if self.embedding is not None:
            if classes is None:
                raise ValueError("this discriminator needs the class of each image: forward(images, classes)")
            scores = scores + (self.embedding(classes) * features).sum(1)
        return scores


def smallest_map(shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of the innermost features."""
    return channels[-1], shape[1] >> len(channels), shape[2] >> len(channels)


@torch.no_grad()
def start_small(module: nn.Module) -> None:
    """Draw the weights of all dense layers and convolutions from N(0, 0.02), biases 0 (Radford et al. 2016)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def write_onnx(generator: Generator, path: Path) -> None:
    """Write the graph from `codes` (and, where it has them, int64 `classes`) to `images`."""
    tables = {} if generator.embedding is None else {"classes": generator.embedding.weight}
    images = Stage("images", generator.shape, nodes_of([generator.layers]))
    write_graph([images], path, shape=[generator.latent_size], source="codes", appended=tables)
