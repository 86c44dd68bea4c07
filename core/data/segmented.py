"""Images with a mask each: the class of every pixel, by value or by colour."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.data.archives import Member, read_members
from core.data.compression import DEFAULT_LIMITS, Limits
from core.data.layouts import IMAGES, MASKS, part_of
from core.data.opening import open_source
from core.data.pictures import BROKEN, MAX_IMAGE_BYTES, Size, decoded, open_image
from core.data.problems import Problems
from core.data.sources import SegmentedSource, wrong_kind
from core.errors import InvalidData, TooLarge

if TYPE_CHECKING:
    import torch  # where it is used, it is imported then: who reads uploads makes no tensors, and is light without it

IGNORED = 255  # the class number of pixels that nobody has named
MAX_CLASSES = 255
MAX_BYTES = 64 * 2**30
MAX_NOTES_BYTES = 2**20
COLOUR = 2**24  # added to what is a colour, so that it is no value

Values = npt.NDArray[np.uint32]  # [height, width]


@dataclass(frozen=True)
class Segmented:
    """Images of one size with the class of each pixel, IGNORED where it has none."""

    images: torch.Tensor  # [n, channels, height, width] uint8
    masks: torch.Tensor  # [n, height, width] uint8
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, rows: torch.Tensor) -> Segmented:
        """Only these rows."""
        return Segmented(self.images[rows], self.masks[rows], self.class_names)


@dataclass
class Survey:
    """What a first look at all members found."""

    sizes: dict[str, Size]  # of the images, by what they are called
    places: dict[str, str]  # of the images, by what they are called: the member's name
    masks: Counter[int]  # in how many masks each value or colour occurs
    names: Mapping[int, str]  # of values or colours, in the order of the classes

    def classes(self) -> dict[str, int]:
        """In how many masks each class occurs, in the order of the classes' numbers."""
        return {name: self.masks[value] for value, name in self.names.items()}


def read_segmented(path: Path, *, size: Size, channels: int) -> Segmented:
    """All images and masks in memory at `size`; masks are resized without mixing classes. Raises InvalidData."""
    import torch

    source = open_source(path)
    if not isinstance(source, SegmentedSource):
        raise wrong_kind(source, "images and masks")
    found = survey(source, DEFAULT_LIMITS, decode=False)
    count = len(found.sizes)
    if count * (channels + 1) * size[0] * size[1] > MAX_BYTES:
        raise TooLarge(
            f"the images take over {MAX_BYTES // 2**30} GiB as pixels: set a smaller image_size", param="file"
        )
    images = np.empty((count, channels, *size), dtype=np.uint8)
    masks = np.empty((count, *size), dtype=np.uint8)
    rows = {key: row for row, key in enumerate(sorted(found.sizes))}
    numbers = np.array(list(found.names), dtype=np.uint32)
    problems = Problems()
    for member, key, is_mask in _members(source, problems, DEFAULT_LIMITS):
        image = open_image(member.read(MAX_IMAGE_BYTES))
        try:
            if is_mask:
                masks[rows[key]] = _resized(_numbered(_values(image), numbers), size)
            else:
                images[rows[key]] = decoded(image, channels=channels, size=size)
        except ValueError as error:
            problems.add(member.name, str(error))
    problems.check()
    return Segmented(torch.from_numpy(images), torch.from_numpy(masks), tuple(found.names.values()))


def survey(source: SegmentedSource, limits: Limits, *, decode: bool) -> Survey:
    """Look at every member; raises InvalidData by member for what is broken, or has no partner of its size."""
    problems = Problems()
    images: dict[str, tuple[str, Size]] = {}
    masks: dict[str, tuple[str, Size]] = {}
    values: Counter[int] = Counter()
    for member, key, is_mask in _members(source, problems, limits):
        try:
            image = open_image(member.read(MAX_IMAGE_BYTES))
            if is_mask:
                values.update(_distinct(image))
            elif decode:
                decoded(image, channels=1, size=None)
            (masks if is_mask else images)[key] = (member.name, (image.height, image.width))
        except ValueError as error:
            problems.add(member.name, str(error))
        except InvalidData as error:
            problems.extend(error.problems)
    _check_pairs(images, masks, problems)
    names = _names_of(source, values, problems, limits)
    problems.check()
    sizes = {key: size for key, (_, size) in images.items()}
    return Survey(sizes, {key: name for key, (name, _) in images.items()}, values, names)


def _members(source: SegmentedSource, problems: Problems, limits: Limits) -> Iterator[tuple[Member, str, bool]]:
    """Every image and mask with what it is called, and whether it is a mask."""
    for member in read_members(source.path, source.container, problems, limits):
        if member.name in source.notes:
            continue
        mask, image = part_of(member.name, MASKS), part_of(member.name, IMAGES)
        if mask is None and image is None:
            problems.add(member.name, f"lies neither below {IMAGES}/ nor below {MASKS}/")
        else:
            yield member, mask if mask is not None else str(image), mask is not None


def _check_pairs(
    images: Mapping[str, tuple[str, Size]], masks: Mapping[str, tuple[str, Size]], problems: Problems
) -> None:
    for key, (name, size) in images.items():
        if key not in masks:
            problems.add(name, f"has no mask: there is no {MASKS}/{Path(key).name} with any suffix")
        elif masks[key][1] != size:
            other, found = masks[key]
            problems.add(other, f"is {_spelt(found)}, {name} {_spelt(size)}: they must be of one size")
    for key, (name, _) in masks.items():
        if key not in images:
            problems.add(name, f"has no image: there is no {IMAGES}/{Path(key).name} with any suffix")
    if not images and not problems:
        raise InvalidData("there are no images")


def _spelt(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _values(image: Image.Image) -> Values:
    """The value of each pixel of a mask; colours count from COLOUR on. Raises ValueError."""
    try:
        if image.mode in ("1", "L", "P", "I", "I;16"):
            values = np.asarray(image.convert("L") if image.mode == "1" else image)
            return values.astype(np.uint32)
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.uint32), 2, 0)
    except BROKEN as error:
        raise ValueError(f"cannot be decoded: {error!s:.100}") from error
    found: Values = COLOUR + (red << 16) + (green << 8) + blue
    return found


def _distinct(image: Image.Image) -> list[int]:
    found: list[int] = np.unique(_values(image)).tolist()
    if len(found) > MAX_CLASSES + 1:
        raise ValueError(
            f"has {len(found):,} different values: a mask has one value or colour a class (JPEG blurs them: use PNG)"
        )
    return found


def _names_of(source: SegmentedSource, values: Counter[int], problems: Problems, limits: Limits) -> dict[int, str]:
    """The classes' values in order, and what they are called: by the archive's own list, or by value or colour."""
    if len(source.notes) > 1:
        problems.add(source.notes[1], f"the classes are named twice: {source.notes[0]} does it too")
    if source.notes:
        return _listed_names(source, values, problems, limits)
    found = sorted(values)
    if len(found) > 2 and IGNORED in found:
        found.remove(IGNORED)
    if len(found) > MAX_CLASSES:
        raise InvalidData(f"the masks have {len(found):,} different values in all; there may be {MAX_CLASSES}")
    return {value: _spelt_value(value) for value in found}


def _spelt_value(value: int) -> str:
    return f"#{value - COLOUR:06x}" if value >= COLOUR else str(value)


def _listed_names(source: SegmentedSource, values: Counter[int], problems: Problems, limits: Limits) -> dict[int, str]:
    place = source.notes[0]
    content = next(
        member.read(MAX_NOTES_BYTES)
        for member in read_members(source.path, source.container, Problems(), limits)
        if member.name == place
    )
    try:
        names = _parsed_names(content.decode("utf-8-sig"), is_json=place.endswith(".json"))
    except (ValueError, RecursionError) as error:
        problems.add(place, str(error))
        return {}
    for value in sorted(set(values) - set(names) - {IGNORED}):
        problems.add(place, f"does not name {_spelt_value(value)}, which {values[value]:,} masks hold")
    return names


def _parsed_names(text: str, *, is_json: bool) -> dict[int, str]:
    """Names by value: a line each from 0 on, a JSON list, or an object of values or colours; raises ValueError."""
    read = json.loads(text) if is_json else text.splitlines()
    pairs = read.items() if isinstance(read, dict) else enumerate(read) if isinstance(read, list) else ()
    names = {_value_of(key): str(name).strip() for key, name in pairs}
    if not names or len(set(names.values())) < len(names) or not all(names.values()):
        raise ValueError(
            'must name each class once: a line a class from value 0 on, or JSON such as {"0": "sky", "#ff0000": "car"}'
        )
    if len(names) > MAX_CLASSES:
        raise ValueError(f"names {len(names):,} classes; there may be {MAX_CLASSES}")
    return dict(sorted(names.items()))


def _value_of(key: object) -> int:
    text = str(key)
    return COLOUR + int(text[1:], 16) if text.startswith("#") else int(text)


def _numbered(values: Values, classes: Values) -> npt.NDArray[np.uint8]:
    """The number of each pixel's class among `classes`, which are in order; IGNORED for others."""
    places = np.searchsorted(classes, values).clip(max=len(classes) - 1)
    found: npt.NDArray[np.uint8] = np.where(classes[places] == values, places, IGNORED).astype(np.uint8)
    return found


def _resized(numbers: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    found: npt.NDArray[np.uint8] = np.asarray(
        Image.fromarray(numbers).resize((size[1], size[0]), Image.Resampling.NEAREST)
    )
    return found
