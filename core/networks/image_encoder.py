"""An encoder of images without a head: how pixels become what it takes, and its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from core.errors import InvalidData
from core.networks.architectures import ResNet, ViT, build_encoder
from core.networks.classifier import Scaling, fitted, write_preprocessor
from core.networks.loading import read_config
from core.networks.opening import image_format
from core.networks.saving import is_network_config
from core.networks.standardization import moments


@dataclass(frozen=True)
class ImageEncoder:
    """A transformers model without a head, and how it reads images.

    `shape`: (channels, height, width) of what it takes. `scaling`: what is taken off pixels in [0, 1].
    """

    network: nn.Module
    shape: tuple[int, int, int]
    scaling: Scaling

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Features [rows, width] of pixels [rows, channels, any height, any width], bytes or in [0, 1]."""
        x = x.to(next(self.network.parameters()).device, non_blocking=True)
        x = fitted(x.float() / 255 if x.dtype == torch.uint8 else x, self.shape)
        x = self.scaling.applied(x).contiguous(memory_format=torch.channels_last)
        return self._pooled(self.network(pixel_values=x))

    @property
    def width(self) -> int:
        """Numbers in a feature vector."""
        config: Any = self.network.config
        sizes = getattr(config, "hidden_sizes", None)
        return int(sizes[-1] if sizes else config.hidden_size)

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors and preprocessor_config.json, as transformers' AutoModel reads them."""
        self.network.save_pretrained(folder)  # type: ignore[operator]
        write_preprocessor(folder / "preprocessor_config.json", self.scaling, self.shape)

    def _pooled(self, output: Any) -> torch.Tensor:
        """What the classifiers of transformers take: the class token of a ViT, the mean of a map."""
        states: torch.Tensor = output.last_hidden_state
        return states[:, 0] if states.dim() == 3 else states.mean((2, 3))


def new_encoder(architecture: ResNet | ViT, images: torch.Tensor, *, size: Sequence[int]) -> ImageEncoder:
    """One with fresh weights, for `images` [n, channels, height, width] that it is to see at `size` (height, width)."""
    shape = (images.shape[1], size[0], size[1])
    mean, std = moments(images)
    return ImageEncoder(
        build_encoder(architecture, shape=shape), shape, Scaling(tuple(mean.tolist()), tuple(std.tolist()))
    )


def open_encoder(folder: Path, *, param: str) -> ImageEncoder:
    """The ResNet or ViT in `folder`, without its head; raises InvalidData, of field `param`, for any other model.

    Nothing from the folder is executed, and pickled weights are refused.
    """
    config = read_config(folder)
    if is_network_config(config) or config.get("model_type") not in ("resnet", "vit"):
        raise InvalidData(
            f"simclr cannot go on with a model of type '{config.get('model_type')}': name one that a job of method "
            "simclr made, or a ResNet or ViT of transformers",
            param=param,
        )
    shape, scaling = image_format(folder, config, param)
    try:
        network = transformers.AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidData(f"the weights cannot be read as safetensors: {error!s:.300}", param=param) from None
    return ImageEncoder(network, shape, scaling)
