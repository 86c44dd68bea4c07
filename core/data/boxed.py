"""Images with boxes around what they show, each with its class: COCO's JSON, or a JSON line an image."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from core.data.archives import read_members
from core.data.compression import DEFAULT_LIMITS, Limits
from core.data.json_lines import parse_object, refuse_constant
from core.data.labels import label_name
from core.data.natural_order import natural
from core.data.opening import open_source
from core.data.pictures import MAX_IMAGE_BYTES, Size, decoded, open_image
from core.data.problems import Problems
from core.data.sources import BoxedSource, wrong_kind
from core.errors import InvalidData, Problem, TooLarge

if TYPE_CHECKING:
    import torch  # where it is used, it is imported then: who reads uploads makes no tensors, and is light without it

NOTHING = -1  # the class of a place that holds no box
MAX_BYTES = 64 * 2**30
MAX_NOTES_BYTES = 256 * 2**20
MAX_BOXES = 1000  # in one image
SLACK = 1.0  # pixels by which a box may leave its image: rounding
LAYOUT = (
    'send COCO\'s JSON (images, annotations, categories), or JSON Lines such as {"file_name": "1.png", "objects": '
    '{"bbox": [[left, top, width, height]], "category": ["cat"]}}, in pixels'
)

Note = tuple[str, str, Any, Any]  # where it stands, the image's name, a box, its class


@dataclass(frozen=True)
class Boxed:
    """Images of one size with their boxes: centre, width and height as fractions of the image."""

    images: torch.Tensor  # [n, channels, height, width] uint8
    boxes: torch.Tensor  # [n, most boxes, 4] float32: x, y, width, height
    labels: torch.Tensor  # [n, most boxes] int64, an index into class_names, or NOTHING
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, rows: torch.Tensor) -> Boxed:
        """Only these rows."""
        return Boxed(self.images[rows], self.boxes[rows], self.labels[rows], self.class_names)


@dataclass
class Survey:
    """What a first look at all members found: the boxes of each image, as fractions, and how many a class has."""

    boxes: dict[str, list[tuple[list[float], str]]]  # by the image's member, in the archive's order
    classes: dict[str, int]


def read_boxed(path: Path, *, size: Size, channels: int) -> Boxed:
    """All images in memory at `size`, with their boxes; raises InvalidData by member or line."""
    import torch

    source = open_source(path)
    if not isinstance(source, BoxedSource):
        raise wrong_kind(source, "images and boxes")
    found = survey(source, DEFAULT_LIMITS, decode=False)
    count = len(found.boxes)
    if count * channels * size[0] * size[1] > MAX_BYTES:
        raise TooLarge(
            f"the images take over {MAX_BYTES // 2**30} GiB as pixels: set a smaller image_size", param="file"
        )
    images = np.empty((count, channels, *size), dtype=np.uint8)
    rows = {name: row for row, name in enumerate(found.boxes)}
    problems = Problems()
    for member in read_members(source.path, source.container, problems):
        if member.name in rows:
            try:
                image = open_image(member.read(MAX_IMAGE_BYTES))
                images[rows[member.name]] = decoded(image, channels=channels, size=size)
            except ValueError as error:
                problems.add(member.name, str(error))
    problems.check()
    names = tuple(found.classes)
    return Boxed(torch.from_numpy(images), *_padded(list(found.boxes.values()), names), names)


def _padded(boxes: list[list[tuple[list[float], str]]], names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """All boxes [n, most, 4] and their classes [n, most]."""
    import torch

    most = max(1, *map(len, boxes))
    places, labels = torch.zeros(len(boxes), most, 4), torch.full((len(boxes), most), NOTHING)
    for row, found in enumerate(boxes):
        for place, (box, name) in enumerate(found):
            places[row, place], labels[row, place] = torch.tensor(box), names.index(name)
    return places, labels


def survey(source: BoxedSource, limits: Limits, *, decode: bool) -> Survey:
    """Look at every member; raises InvalidData by member or line for what is broken or does not belong together."""
    problems = Problems()
    if len(source.notes) > 1:
        raise InvalidData(Problem(source.notes[1], f"boxes are told twice: {source.notes[0]} does it too"))
    sizes: dict[str, Size] = {}
    content = b""
    for member in read_members(source.path, source.container, problems, limits):
        try:
            if member.name in source.notes:
                content = member.read(MAX_NOTES_BYTES)
                continue
            image = open_image(member.read(MAX_IMAGE_BYTES))
            if decode:
                decoded(image, channels=1, size=None)
            sizes[member.name] = (image.height, image.width)
        except ValueError as error:
            problems.add(member.name, str(error))
        except InvalidData as error:
            problems.extend(error.problems)
    problems.check()
    return _matched(source.notes[0], content, sizes, problems)


def _matched(place: str, content: bytes, sizes: Mapping[str, Size], problems: Problems) -> Survey:
    """The boxes that the notes tell of each image."""
    members = _by_last_name(sizes)
    boxes: dict[str, list[tuple[list[float], str]]] = {name: [] for name in sizes}
    told: set[str] = set()
    classes: Counter[str] = Counter()
    for where, name, box, category in _notes(place, content, problems, classes):
        try:
            member = _member_of(name, members)
            told.add(member)
            if box is None:
                continue
            label = label_name(category)
            boxes[member].append((_fractions(box, sizes[member]), label))
            classes[label] += 1
        except (ValueError, OverflowError) as error:
            problems.add(where, str(error))
    for name, found in boxes.items():
        if name not in told:
            problems.add(name, f"is not named in {place}")
        if len(found) > MAX_BOXES:
            problems.add(name, f"has {len(found):,} boxes; an image may have {MAX_BOXES:,}")
    problems.check()
    if not classes.total():
        raise InvalidData(Problem(place, f"tells of no boxes: {LAYOUT}"))
    return Survey(boxes, {name: classes[name] for name in sorted(classes, key=natural)})


def _by_last_name(names: Mapping[str, Size]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(PurePosixPath(name).name, []).append(name)
    return found


def _member_of(name: object, members: Mapping[str, list[str]]) -> str:
    """The archive's image that goes by this name, which may leave out folders; raises ValueError."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"names no image: {LAYOUT}")
    fitting = [each for each in members.get(PurePosixPath(name).name, ()) if f"/{each}".endswith(f"/{name}")]
    if len(fitting) != 1:
        what = "there is no image" if not fitting else f"there are {len(fitting)} images"
        raise ValueError(f"{what} {name[:200]!r} in the archive")
    return fitting[0]


def _fractions(box: object, size: Size) -> list[float]:
    """Centre, width and height as fractions, of [left, top, width, height] in pixels; raises ValueError."""
    height, width = size
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise ValueError("a box is [left, top, width, height], in pixels")
    left, top, wide, high = (float(value) for value in box)
    right, bottom = left + wide, top + high
    if not all(map(math.isfinite, (left, top, right, bottom))) or wide <= 0 or high <= 0:
        raise ValueError(f"box {box} has no area")
    if left < -SLACK or top < -SLACK or right > width + SLACK or bottom > height + SLACK:
        raise ValueError(f"box {box} leaves its image, which is {width}x{height}: it is [left, top, width, height]")
    left, right = max(0.0, left) / width, min(width, right) / width
    top, bottom = max(0.0, top) / height, min(height, bottom) / height
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def _notes(place: str, content: bytes, problems: Problems, classes: Counter[str]) -> Iterator[Note]:
    """Every box with its image and class, and every image without one, its box None; COCO's classes are all counted."""
    try:
        text = content.decode("utf-8-sig")
        if place.endswith(".jsonl"):
            yield from _of_lines(place, text, problems)
            return
        read = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        problems.add(place, f"is not JSON: {error!s:.200}")
        return
    yield from _of_coco(place, read, problems, classes)


def _of_lines(place: str, text: str, problems: Problems) -> Iterator[Note]:
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{place}, line {number}"
        if not line.strip():
            continue
        try:
            value = parse_object(line.strip())
            boxes, names = _objects_of(value.get("objects"))
        except ValueError as error:
            problems.add(where, str(error))
            continue
        yield where, value.get("file_name", ""), None, None
        for box, name in zip(boxes, names, strict=True):
            yield where, value.get("file_name", ""), box, name


def _objects_of(value: object) -> tuple[list[Any], list[Any]]:
    """Boxes and classes of a line's `objects`, a pair of lists or a list of pairs; raises ValueError."""
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        value = {"bbox": [each.get("bbox") for each in value], "category": [each.get("category") for each in value]}
    if not isinstance(value, dict):
        raise ValueError(f"has no objects: {LAYOUT}")
    boxes, names = value.get("bbox"), value.get("category", value.get("categories"))
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names):
        raise ValueError(f"needs as many of bbox as of category: {LAYOUT}")
    return boxes, names


def _of_coco(place: str, read: Any, problems: Problems, classes: Counter[str]) -> Iterator[Note]:
    parts = [_objects_in(read, name) for name in ("images", "annotations", "categories")]
    if None in parts:
        problems.add(place, f"is not COCO's: {LAYOUT}")
        return
    images, annotations, categories = (part or [] for part in parts)
    names = {str(each.get("id")): each.get("name") for each in categories}
    for number, name in enumerate(names.values(), start=1):
        try:
            classes[label_name(name)] += 0
        except ValueError as error:
            problems.add(f"{place}, category {number}", str(error))
    files = {str(each.get("id")): each.get("file_name", "") for each in images}
    for identity, file in files.items():
        yield f"{place}, image {identity}", file, None, None
    for number, each in enumerate(annotations, start=1):
        where = f"{place}, annotation {number}"
        image, category = str(each.get("image_id")), str(each.get("category_id"))
        if image not in files:
            problems.add(where, f"image_id {image:.50} is not among the images")
        elif category not in names:
            problems.add(where, f"category_id {category:.50} is not among the categories")
        elif not each.get("iscrowd"):  # crowds are outlines of many, which nobody is to learn
            yield where, files[image], each.get("bbox"), names[category]


def _objects_in(read: Any, name: str) -> list[dict[str, Any]] | None:
    found = read.get(name) if isinstance(read, dict) else None
    return found if isinstance(found, list) and all(isinstance(each, dict) for each in found) else None
