"""Images as one tensor of bytes, or a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.data.labels import Classes
from core.data.natural_order import natural
from core.data.opening import array_labels, open_source
from core.data.pictures import Pixels, Scan, Size, decoded, open_image, scan
from core.data.pixels import layout_of, pixel_blocks
from core.data.problems import Problems
from core.data.sources import PictureSource, PixelSource, wrong_kind
from core.errors import InvalidData, TooLarge

MAX_BYTES = 64 * 2**30
_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Images:
    """Images of one size and, where they came with classes, the class of each."""

    pixels: torch.Tensor  # [n, channels, height, width] uint8
    labels: torch.Tensor | None  # [n] int64, an index into class_names
    class_names: tuple[str, ...]


def read_images(path: Path, *, size: int | tuple[int, int] | None = None, channels: int | None = None) -> Images:
    """All images in memory, resized to `size` (height and width, or one number for both) and with 1 or 3 channels.

    Without `size` all must have the same. Without `channels` they are 1 where all images are grey, else 3.
    """
    if channels not in (None, 1, 3):
        raise ValueError("channels is 1 or 3")
    wanted = (size, size) if isinstance(size, int) else size
    source = open_source(path)
    if isinstance(source, PixelSource):
        return _read_pixels(source, wanted, channels)
    if isinstance(source, PictureSource):
        return _read_pictures(source, wanted, channels)
    raise wrong_kind(source, "images")


@dataclass(frozen=True)
class ImageStream:
    """Images that are read from their file again and again, a few megabytes at a time."""

    examples: int
    shape: tuple[int, int, int]  # channels, height, width
    blocks: Callable[[], Iterator[Pixels]]  # [some, channels, height, width]


def stream_images(path: Path, *, size: int | None = None) -> ImageStream:
    """The pixels that `read_images` gives, in flat memory."""
    wanted = None if size is None else (size, size)
    source = open_source(path)
    if isinstance(source, PixelSource):
        array = source.arrays.features
        channels, height, width = layout_of(array).shape
        shape = (channels, *(wanted or (height, width)))
        return ImageStream(
            len(array), shape, lambda: (_fitted(block, shape[1:], channels) for block in pixel_blocks(array))
        )
    if not isinstance(source, PictureSource):
        raise wrong_kind(source, "images")
    pictures, found = source, scan(source.images, decode=False)
    shape = (found.channels, *(wanted or _shared_size(found)))
    return ImageStream(found.examples, shape, lambda: _picture_blocks(pictures, shape))


def _picture_blocks(source: PictureSource, shape: tuple[int, int, int]) -> Iterator[Pixels]:
    problems = Problems()
    block = np.empty((max(1, _BLOCK_BYTES // prod(shape)), *shape), dtype=np.uint8)
    filled = 0
    for encoded in source.images(problems):
        try:
            block[filled] = decoded(open_image(encoded.content), channels=shape[0], size=shape[1:])
        except ValueError as error:
            problems.add(encoded.where, str(error))
            continue
        filled += 1
        if filled == len(block):
            yield block.copy()
            filled = 0
    problems.check()
    if filled:
        yield block[:filled].copy()


def _read_pictures(source: PictureSource, wanted: Size | None, channels: int | None) -> Images:
    """First the headers, for the number and the sizes, then the pixels into their places."""
    found = scan(source.images, decode=False)
    size = wanted or _shared_size(found)
    channels = channels or found.channels
    pixels = _room_for(found.examples, channels, size)
    problems = Problems()
    for index, encoded in enumerate(source.images(problems)):
        try:
            pixels[index] = decoded(open_image(encoded.content), channels=channels, size=size)
        except ValueError as error:
            problems.add(encoded.where, str(error))
    problems.check()
    return Images(torch.from_numpy(pixels), *_picture_labels(source, found))


def _shared_size(found: Scan) -> Size:
    if found.size is None or found.other is not None:
        where, size = found.other or ("", (0, 0))
        sizes = f"{found.first!r} is {_spelt(found.size or (0, 0))} pixels, {where!r} is {_spelt(size)}"
        raise InvalidData(f"the images differ in size ({sizes}): set image_size")
    return found.size


def _spelt(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _room_for(examples: int, channels: int, size: Size) -> Pixels:
    needed = examples * channels * size[0] * size[1]
    if needed > MAX_BYTES:
        raise TooLarge(f"the images take {needed / 2**30:,.0f} GiB as pixels: set a smaller image_size", param="file")
    return np.empty((examples, channels, *size), dtype=np.uint8)


def _picture_labels(source: PictureSource, found: Scan) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    groups = source.classes_of(list(found.groups))
    if groups is None:
        return None, ()
    names = sorted(set(groups.values()), key=natural)
    numbers = np.array([names.index(groups[group]) for group in found.groups], dtype=np.int64)
    return torch.from_numpy(numbers[np.array(found.codes)]), tuple(names)


def _read_pixels(source: PixelSource, wanted: Size | None, channels: int | None) -> Images:
    array = source.arrays.features
    own_channels, height, width = layout_of(array).shape
    size, channels = wanted or (height, width), channels or own_channels
    pixels = _room_for(len(array), channels, size)
    start = 0
    for block in pixel_blocks(array):
        pixels[start : start + len(block)] = _fitted(block, size, channels)
        start += len(block)
    if source.arrays.labels is None:
        return Images(torch.from_numpy(pixels), None, ())
    classes = Classes()
    codes = array_labels(source.arrays, classes)
    return Images(torch.from_numpy(pixels), torch.from_numpy(classes.order()[codes]), classes.names)


def _fitted(block: Pixels, size: Size, channels: int) -> Pixels:
    if block.shape[1:] == (channels, *size):
        return block
    if block.shape[2:] == size and channels == 3:
        return np.repeat(block, 3, axis=1)
    images = (Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in block)
    return np.stack([decoded(image, channels=channels, size=size) for image in images])
