"""What a generator paints again and again, always from the same codes: a grid to look at, and probes to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from core.data.images import Images
from core.training.adversarial import diversity
from core.training.run import Run
from core.training.samples import COLUMNS

PROBES = 256


@dataclass(frozen=True)
class Gallery:
    """The codes of `samples` images that are shown, and after them those of the probes."""

    codes: torch.Tensor  # [samples + probes, latent_size]
    classes: torch.Tensor | None  # [samples + probes]
    examples: torch.Tensor  # [probes, channels, height, width] uint8: training images, of the classes of the probes
    samples: int
    caption: str

    @classmethod
    def of(cls, data: Images, *, samples: int, latent_size: int, seed: int) -> Gallery:
        """Codes drawn from N(0, 1) by the seed; with classes, each row of the grid is of one."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(data.pixels), generator=generator)[:PROBES]
        codes = torch.randn(samples + len(rows), latent_size, generator=generator)
        if data.labels is None:
            return cls(codes, None, data.pixels[rows], samples, "always of the same codes")
        grid = torch.arange(samples) // COLUMNS % len(data.class_names)
        caption = "always of the same codes; a row each of " + ", ".join(data.class_names[:COLUMNS])
        return cls(codes, torch.cat([grid, data.labels[rows]]), data.pixels[rows], samples, caption)

    @torch.no_grad()
    def show(self, generator: nn.Module, run: Run) -> Path:
        """Show the grid that the generator paints, and log the diversity of its probes; answers the grid's file."""
        generator.eval()
        classes = None if self.classes is None else self.classes.to(run.device)
        images = generator(self.codes.to(run.device), classes).cpu()
        probes = None if self.classes is None else self.classes[self.samples :]
        run.log(sample_diversity=diversity(images[self.samples :], self.examples.float() / 255, classes=probes))
        return run.show("samples", images[: self.samples], caption=self.caption)
