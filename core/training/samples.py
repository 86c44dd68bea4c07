"""What a run shows people while it learns: pictures and texts, as files named by step."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from core.training.artifacts import media_type
from core.training.image_grid import write_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Showable = str | torch.Tensor | Figure
else:
    Showable = object

COLUMNS = 10


@dataclass(frozen=True)
class Sample:
    """A picture (PNG) or a text (UTF-8) that was made at a step."""

    name: str
    step: int
    path: Path
    media_type: str
    caption: str
    bytes: int
    sha256: str


def write_sample(content: Showable, folder: Path, *, name: str, step: int, caption: str) -> Sample:
    """Write text, images [count, channels, height, width] in [0, 1] as a grid, or a figure, into `folder`.

    What was shown under this name at this step before is replaced; raises ValueError for a name that is no name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", name):
        raise ValueError(f"a sample's name is made of letters, digits and underscores, not {name!r}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{step:09d}{'.txt' if isinstance(content, str) else '.png'}"
    path.unlink(missing_ok=True)  # it may be linked elsewhere: a new file leaves that one as it is
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, torch.Tensor):
        write_grid(content, path, columns=min(COLUMNS, len(content)))
    else:
        content.savefig(path, dpi=100)
    written = path.read_bytes()
    digest = hashlib.sha256(written).hexdigest()
    return Sample(name, step, path, media_type(path.name), caption, len(written), digest)
