"""What lies beside the images or recordings of an archive: nothing but folders, or masks, boxes, transcripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from core.data.archives import Container, read_members
from core.data.compression import Limits
from core.data.problems import Problems

IMAGES, MASKS = "images", "masks"
CLASS_FILES = ("classes.txt", "classes.json")
BOX_FILES = frozenset({".json", ".jsonl"})
TRANSCRIPT_FILES = frozenset({".csv", ".tsv", ".jsonl"})


@dataclass(frozen=True)
class Layout:
    """How an archive's members belong together; `notes`: the members that say something of the others."""

    kind: Literal["folders", "masks", "boxes", "transcripts"]
    notes: tuple[str, ...] = field(default=())


def layout_of_images(path: Path, container: Container, limits: Limits) -> Layout:
    """Masks where there are folders `images` and `masks`, boxes where there is a JSON file, by names alone."""
    folders: set[str] = set()
    classes: list[str] = []
    boxes: list[str] = []
    for member in read_members(path, container, Problems(), limits):
        name = PurePosixPath(member.name)
        folders.update({IMAGES, MASKS}.intersection(name.parts[:-1]))
        if name.name in CLASS_FILES:
            classes.append(member.name)
        elif name.suffix.lower() in BOX_FILES:
            boxes.append(member.name)
    if folders == {IMAGES, MASKS}:
        return Layout("masks", tuple(classes))
    return Layout("boxes", tuple(boxes)) if boxes else Layout("folders")


def layout_of_recordings(path: Path, container: Container, limits: Limits) -> Layout:
    """Transcripts where there is a table of them, or a text beside a recording, by names alone."""
    tables: list[str] = []
    has_texts = False
    for member in read_members(path, container, Problems(), limits):
        suffix = PurePosixPath(member.name).suffix.lower()
        has_texts = has_texts or suffix == ".txt"
        if suffix in TRANSCRIPT_FILES:
            tables.append(member.name)
    return Layout("transcripts", tuple(tables)) if tables or has_texts else Layout("folders")


def part_of(name: str, folder: str) -> str | None:
    """What a member below a folder of this name is called without it and without its suffix; None elsewhere."""
    parts = PurePosixPath(name).parts
    if folder not in parts[:-1]:
        return None
    place = parts.index(folder)
    return str(PurePosixPath(*parts[:place], *parts[place + 1 :]).with_suffix(""))
