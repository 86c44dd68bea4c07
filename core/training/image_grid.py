"""Images of a batch side by side, as PNG."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional

SHORTEST_SIDE = 48
GAP = 2


def write_grid(images: torch.Tensor, path: Path, *, columns: int) -> None:
    """Lay `images` [count, 1 or 3 channels, height, width], pixels in [0, 1], out in rows of `columns`.

    Small images are enlarged by a whole factor, without smoothing.
    """
    factor = max(1, -(-SHORTEST_SIDE // min(images.shape[2:])))
    pixels = (images.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    pixels = functional.pad(pixels, (0, GAP, 0, GAP), value=255)
    missing = -len(pixels) % columns
    pixels = torch.cat([pixels, torch.full((missing, *pixels.shape[1:]), 255, dtype=torch.uint8)])
    rows = [torch.cat(list(row), 2) for row in pixels.split(columns)]
    grid = torch.cat(rows, 1)[:, :-GAP, :-GAP].permute(1, 2, 0).numpy()
    Image.fromarray(grid[:, :, 0] if grid.shape[2] == 1 else grid).save(path, "PNG", optimize=True)
