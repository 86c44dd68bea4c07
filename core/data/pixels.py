"""Arrays of pixels in any common layout as [n, channels, height, width] of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.data.arrays import StoredArray
from core.errors import InvalidData, Problem

_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Layout:
    """One image's shape, [channels, height, width], and whether the file keeps its channels last."""

    shape: tuple[int, int, int]
    is_channels_last: bool = False


def layout_of(array: StoredArray) -> Layout:
    """The layout of (n, h, w), (n, h, w, c) or, where c can only stand first, (n, c, h, w)."""
    if len(array.shape) == 3:
        return Layout((1, *array.shape[1:]))
    _, first, second, last = array.shape
    if last in _CHANNELS:
        return Layout((last, first, second), is_channels_last=True)
    if first in _CHANNELS:
        return Layout((first, second, last))
    raise InvalidData(
        Problem(array.name, f"shape {array.shape} has no axis of 1 or 3 channels, last or after the first")
    )


def pixel_blocks(array: StoredArray) -> Iterator[npt.NDArray[np.uint8]]:
    """Blocks of images; fractions count as 0 to 1 if none is larger, else as 0 to 255."""
    layout = layout_of(array)
    scale = 255.0 if _is_unit(array) else 1.0
    start = 0
    for block in array.blocks():
        pixels = _bytes(block, array.name, start, scale).reshape(len(block), *array.shape[1:])
        if layout.is_channels_last:
            pixels = pixels.transpose(0, 3, 1, 2)
        yield pixels.reshape(len(block), *layout.shape)
        start += len(block)


def _is_unit(array: StoredArray) -> bool:
    if array.dtype.kind == "b":
        return True
    if array.dtype.kind != "f" and not array.is_bfloat16:
        return False
    return all(not (block > 1).any() for block in array.blocks())


def _bytes(block: npt.NDArray[Any], name: str, start: int, scale: float) -> npt.NDArray[np.uint8]:
    if block.dtype == np.uint8:
        return block
    bad = ~((block >= 0) & (block <= 255))  # NaN too
    if bad.any():
        image = int(np.argwhere(bad)[0][0])
        value = block[bad].flat[0]
        raise InvalidData(
            Problem(f"{name}, image {start + image + 1}", f"{value} is no pixel: use 0 to 255, or 0 to 1")
        )
    return np.rint(block * scale).astype(np.uint8) if block.dtype.kind in "fb" else block.astype(np.uint8)
