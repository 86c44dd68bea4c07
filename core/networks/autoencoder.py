"""Autoencoders: networks that say an example in a short code, and the example again from the code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from core.errors import InvalidSpec
from core.networks.onnx_graph import Node, Stage, nodes_of, write_graph
from core.networks.saving import network

KERNEL = 4  # with stride 2 and padding 1 it halves a picture, or doubles it


@network("autoencoder")
class Autoencoder(nn.Module):
    """An encoder to `code_size` numbers and a decoder that mirrors it.

    `shape`: (features,) for tables, (channels, height, width) for images with pixels in [0, 1]. `sizes`: widths of the
    dense layers, or channels of the convolutions, each of which halves the picture. A variational one gives each code a
    normal distribution; the codes of a sparse one lie in (0, 1). Tables are standardised inside, by `mean` and `std`.
    """

    mean: torch.Tensor  # [features], of tables
    std: torch.Tensor  # [features], of tables

    def __init__(
        self,
        shape: Sequence[int],
        *,
        code_size: int,
        sizes: Sequence[int],
        architecture: Literal["dense", "convolutional"] = "dense",
        is_variational: bool = False,
        is_sparse: bool = False,
    ) -> None:
        super().__init__()
        self.config = {
            "shape": list(shape),
            "code_size": code_size,
            "sizes": list(sizes),
            "architecture": architecture,
            "is_variational": is_variational,
            "is_sparse": is_sparse,
        }
        self.shape = tuple(shape)
        self.code_size = code_size
        self.is_image = len(shape) == 3
        build = dense_layers if architecture == "dense" else convolutional_layers
        encoder, width, decoder = build(self.shape, code_size=code_size, sizes=sizes)
        self.encoder = nn.Sequential(*encoder)
        self.code = nn.Linear(width, code_size)
        self.log_variance = nn.Linear(width, code_size) if is_variational else None
        self.activation = nn.Sigmoid() if is_sparse else None
        self.decoder = nn.Sequential(*decoder)
        if not self.is_image:
            self.register_buffer("mean", torch.zeros(shape[0]))
            self.register_buffer("std", torch.ones(shape[0]))
        initialise(encoder)
        initialise(decoder)

    def codes(self, hidden: torch.Tensor) -> torch.Tensor:
        """Codes [rows, code_size] of what the encoder answered; of a variational one, their means."""
        codes: torch.Tensor = self.code(hidden)
        return codes if self.activation is None else self.activation(codes)

    @torch.no_grad()
    def start_at(self, image: torch.Tensor) -> None:
        """Let an untrained decoder answer about `image` [channels, height, width]: the mean of the data, say."""
        logits = image.clamp(0.01, 0.99).logit()
        layer = next(layer for layer in reversed(self.decoder) if isinstance(layer, nn.Linear | nn.ConvTranspose2d))
        bias = cast(torch.Tensor, layer.bias)
        bias.copy_(logits.flatten() if isinstance(layer, nn.Linear) else logits.mean((1, 2)))

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """What the encoder takes and the loss compares with: a table's columns at mean 0 and variance 1."""
        return x if self.is_image else (x - self.mean) / self.std

    def as_examples(self, decoded: torch.Tensor) -> torch.Tensor:
        """What the decoder answered in the form that the encoder takes: pixels in [0, 1], or standardised columns."""
        return decoded.sigmoid() if self.is_image else decoded

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes [rows, code_size] of `x` [rows, *shape]; of a variational one, their means."""
        return self.codes(self.encoder(self.standardised(x)))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Examples [rows, *shape] for these codes, in the units of the data."""
        decoded: torch.Tensor = self.decoder(codes)
        return decoded.sigmoid() if self.is_image else decoded * self.std + self.mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The reconstruction of `x`."""
        return self.decode(self.encode(x))


def default_code_size(features: int, *, is_sparse: bool) -> int:
    """30, or half of the features where these are fewer than 60; sparse codes are longer."""
    return min(256, 2 * features) if is_sparse else max(1, min(30, features // 2))


def default_sizes(features: int, *, is_image: bool, is_sparse: bool) -> list[int]:
    """Hinton & Salakhutdinov's 1000-500-250 for images, and two layers that grow with a table; sparse: the first."""
    width = min(1000, max(64, 8 * features))
    sizes = [1000, 500, 250] if is_image else [width, width // 2]
    return sizes[:1] if is_sparse else sizes


def check_code_size(size: int, *, features: int) -> None:
    """Raise InvalidSpec where codes of this size could just be copies."""
    if size >= features:
        raise InvalidSpec(
            f"codes of {size} are no shorter than the features, which are {features}: the network would just copy them",
            param="code_size",
        )


def check_halving(channels: Sequence[int], shape: Sequence[int]) -> None:
    """Raise InvalidSpec where images of this shape cannot be halved by so many convolutions."""
    if any(side % 2 ** len(channels) for side in shape[1:]):
        raise InvalidSpec(
            f"{len(channels)} convolutions halve an image {len(channels)} times, which {shape[1]}x{shape[2]} pixels do "
            f"not allow: set image_size to a multiple of {2 ** len(channels)}, or fewer channels",
            param="channels",
        )


Layers = list[nn.Module]


def dense_layers(shape: tuple[int, ...], *, code_size: int, sizes: Sequence[int]) -> tuple[Layers, int, Layers]:
    """Encoder, the width it ends in, and decoder (after Hinton & Salakhutdinov 2006, with SiLU for the logistic)."""
    widths = [prod(shape), *sizes]
    encoder: Layers = [nn.Flatten()]
    for width, following in pairwise(widths):
        encoder += [nn.Linear(width, following), nn.SiLU()]
    decoder: Layers = []
    for width, following in zip([code_size, *sizes[::-1]], widths[::-1], strict=True):
        decoder += [nn.Linear(width, following), nn.SiLU()]
    return encoder, widths[-1], [*decoder[:-1], nn.Unflatten(1, shape)]


def convolutional_layers(shape: tuple[int, ...], *, code_size: int, sizes: Sequence[int]) -> tuple[Layers, int, Layers]:
    """Encoder, the width it ends in, and decoder; height and width must be divisible by 2 ** len(sizes)."""
    channels = [shape[0], *sizes]
    smallest = (sizes[-1], shape[1] >> len(sizes), shape[2] >> len(sizes))
    encoder: Layers = []
    decoder: Layers = [nn.Linear(code_size, prod(smallest)), nn.SiLU(), nn.Unflatten(1, smallest)]
    for count, following in pairwise(channels):
        encoder += [nn.Conv2d(count, following, KERNEL, stride=2, padding=1), nn.SiLU()]
    for count, following in pairwise(channels[::-1]):
        decoder += [nn.ConvTranspose2d(count, following, KERNEL, stride=2, padding=1), nn.SiLU()]
    return [*encoder, nn.Flatten()], prod(smallest), decoder[:-1]


def initialise(layers: Iterable[nn.Module]) -> None:
    """Draw the weights of layers before an activation after He et al. 2015; the linear ones keep PyTorch's, smaller.

    Without it a deep stack hardly moves in its first epochs.
    """
    for layer, following in pairwise(layers):
        if isinstance(following, nn.SiLU):
            weight, bias = cast(nn.Linear, layer).weight, cast(nn.Linear, layer).bias
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
            nn.init.zeros_(bias)


def write_onnx(network: Autoencoder, folder: Path) -> None:
    """Write `model.onnx` (`input` to `codes` and `reconstruction`) and `decoder.onnx` (`codes` to `reconstruction`)."""
    encode = nodes_of([network.encoder, network.code] + ([] if network.activation is None else [network.activation]))
    decode = nodes_of([network.decoder])
    if network.is_image:
        decode.append(Node("Sigmoid"))
    else:
        encode = [Node("Sub", [network.mean]), Node("Div", [network.std]), *encode]
        decode += [Node("Mul", [network.std]), Node("Add", [network.mean])]
    encoder = Stage("codes", [network.code_size], encode)
    decoder = Stage("reconstruction", network.shape, decode)
    write_graph([encoder, decoder], folder / "model.onnx", shape=network.shape)
    write_graph([decoder], folder / "decoder.onnx", shape=[network.code_size], source="codes")
