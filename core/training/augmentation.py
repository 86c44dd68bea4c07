"""Random changes of training images that leave their class alone."""

from __future__ import annotations

import torch

from core.training.labelled import Batch, LabelledSpec


def augment(batch: Batch, spec: LabelledSpec, *, generator: torch.Generator) -> Batch:
    """Shift and mirror images as the spec asks, each by its own draw; other batches come back as they are.

    Images are [rows, channels, height, width] on the CPU, so that every device sees the same draws.
    """
    if not isinstance(batch, torch.Tensor):
        return batch
    if spec.jitter:
        batch = shifted(batch, torch.randint(-spec.jitter, spec.jitter + 1, (len(batch), 2), generator=generator))
    if spec.horizontal_flip:
        batch = mirrored(batch, generator=generator)
    return batch


def mirrored(images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """The images [rows, channels, height, width], about half of them with left and right exchanged."""
    is_mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(is_mirrored[:, None, None, None], images.flip(3), images)


def shifted(images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Each image moved down and right by its `offsets` [rows, 2] pixels; what comes in repeats the border."""
    height, width = images.shape[2:]
    down = (torch.arange(height) - offsets[:, :1]).clamp(0, height - 1)  # [rows, height]
    right = (torch.arange(width) - offsets[:, 1:]).clamp(0, width - 1)  # [rows, width]
    rows = torch.arange(len(images))[:, None, None]
    return images.movedim(1, -1)[rows, down[:, :, None], right[:, None, :]].movedim(-1, 1)
