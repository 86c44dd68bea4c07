"""How much memory a model folder's weights will take, told from their headers before any is read."""

from __future__ import annotations

import json
import math
from pathlib import Path

from core.errors import InvalidData
from core.networks.gguf import gguf_of

FLOAT32_BYTES = 4
GGUF_COPIES = 2  # the tensors are made whole one after the other, and then given to the network


def loading_bytes(folder: Path) -> int:
    """Bytes that opening takes at its highest, in float32; raises InvalidData for headers that cannot be read."""
    if gguf := gguf_of(folder):
        from core.networks.gguf_reading import Reader  # for few models

        reader = Reader(folder / gguf["gguf_file"])
        return GGUF_COPIES * FLOAT32_BYTES * sum(int(tensor.n_elements) for tensor in reader.tensors)
    return FLOAT32_BYTES * sum(_parameters(path) for path in folder.glob("*.safetensors"))


def _parameters(path: Path) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidData(f"{path.name} is not safetensors, or it is cut short", param="model") from None
