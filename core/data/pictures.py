"""Encoded images, such as PNG and JPEG: their headers checked before anything is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.data.problems import Problems
from core.errors import InvalidData

MAX_PIXELS = 50_000_000
MAX_IMAGE_BYTES = 256 * 2**20
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_GREY = {"1", "L", "LA", "I", "F"}
# what Pillow raises over broken files, by format
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Encoded:
    """One image as it lies in the file, and the folder or the label that it comes under."""

    where: str
    group: str
    content: bytes


@dataclass
class Scan:
    """What the headers of all images say."""

    examples: int = 0
    is_grey: bool = True
    size: Size | None = None  # of the first
    other: tuple[str, Size] | None = None  # the first of another size
    first: str = ""
    groups: dict[str, int] = field(default_factory=dict)
    codes: array[int] = field(default_factory=lambda: array("q"))

    @property
    def channels(self) -> int:
        """One where all images are grey, else three."""
        return 1 if self.is_grey else 3

    def add(self, encoded: Encoded, image: Image.Image) -> None:
        """Take note of one more image."""
        size = (image.height, image.width)
        self.examples += 1
        self.is_grey = self.is_grey and image.mode.split(";")[0] in _GREY
        if self.size is None:
            self.size, self.first = size, encoded.where
        elif size != self.size and self.other is None:
            self.other = (encoded.where, size)
        self.codes.append(self.groups.setdefault(encoded.group, len(self.groups)))


def scan(images: Callable[[Problems], Iterator[Encoded]], *, decode: bool) -> Scan:
    """Look at every image's header and, if told to, decode it; raises InvalidData by member."""
    problems = Problems()
    found = Scan()
    for encoded in images(problems):
        try:
            image = open_image(encoded.content)
            found.add(encoded, image)
            if decode:
                _try_decode(image)
        except ValueError as error:
            problems.add(encoded.where, str(error))
    problems.check()
    if not found.examples:
        raise InvalidData("there are no images")
    return found


def open_image(content: bytes) -> Image.Image:
    """The image, its header read and its pixels not yet; raises ValueError that says what is wrong."""
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except _BOMBS:
        raise ValueError(f"claims more than {MAX_PIXELS:,} pixels") from None
    except BROKEN as error:
        what = "is empty" if not content else "is not an image, or a broken one (PNG, JPEG, GIF, BMP, TIFF, WebP)"
        raise ValueError(what) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"claims {image.width}x{image.height} pixels; an image may have {MAX_PIXELS:,}")
    return image


def _try_decode(image: Image.Image) -> None:
    # a JPEG decoded to an eighth of its size is read to its end, but in a fraction of the time
    try:
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except BROKEN as error:
        raise ValueError(f"cannot be decoded: {error!s:.100}") from error


def decoded(image: Image.Image, *, channels: int, size: Size | None) -> Pixels:
    """The pixels as [channels, height, width]; raises ValueError where they cannot be decoded."""
    try:
        if image.mode.startswith(("I", "F")):
            image = _eight_bits(image)
        image = image.convert("L" if channels == 1 else "RGB")
    except BROKEN as error:
        raise ValueError(f"cannot be decoded: {error!s:.100}") from error
    if size is not None and size != (image.height, image.width):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels: npt.NDArray[Any] = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits with 8 of them; Pillow would clip."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() >= 2**16:
        raise ValueError("its grey values are neither 8 nor 16 bits")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
