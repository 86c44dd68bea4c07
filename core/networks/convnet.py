"""A plain convolutional classifier of small images, and of recordings as frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from core.networks.saving import network
from core.networks.standardization import Standardization

_LAYERS = {
    2: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
    3: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}


@network("convnet")
class ConvolutionalNetwork(nn.Module):
    """3x3 convolutions with batch normalisation and ReLU, halved by pooling after each: an `encoder` and a `head`.

    `shape`: (channels, height, width) of images with pixels in [0, 1]; standardised inside. `channels`: of each
    convolution; the smaller side must be at least 2 ** len(channels). What remains is averaged over height and width in
    four quarters, so that the head knows roughly where things are. Of recordings, (features, frames), the features are
    the channels; the convolutions go along the frames, and two halves remain.
    """

    def __init__(self, shape: Sequence[int], classes: int, *, channels: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.config = {"shape": list(shape), "classes": classes, "channels": list(channels), "dropout": dropout}
        self.shape = tuple(shape)
        self.standardization = Standardization(self.shape)
        convolution, normalisation, pool, average = _LAYERS[len(shape)]
        layers: list[nn.Module] = []
        for count, following in zip([shape[0], *channels], channels, strict=False):
            layers += [convolution(count, following, 3, padding=1, bias=False), normalisation(following), nn.ReLU()]
            layers += [pool(2)]
        self.encoder = nn.Sequential(*layers[:-1], average(2), nn.Flatten(), nn.Dropout(dropout))
        self.head = nn.Linear(2 ** (len(shape) - 1) * channels[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [rows, classes] of `x` [rows, *shape]."""
        logits: torch.Tensor = self.head(self.encoder(self.standardization(x)))
        return logits
