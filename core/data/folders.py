"""Classes from folders: an archive with a folder for each class, or with none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from core.errors import InvalidData

_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}


def folder_of(name: str) -> str:
    """The folder that a member lies in, empty for the archive's root."""
    return name.rpartition("/")[0]


def folder_classes(folders: Iterable[str]) -> dict[str, str] | None:
    """The class of each folder, or None where all files lie in the archive's root.

    Folders around all classes do not count, and folders within a class belong to it. A single folder is a single class.
    """
    paths = {folder: PurePosixPath(folder).parts for folder in folders}
    shared = min(map(len, paths.values()))
    if len(paths) == 1:
        return {folder: parts[-1] for folder, parts in paths.items()} if shared else None
    depth = 0
    while depth < shared and len({parts[depth] for parts in paths.values()}) == 1:
        depth += 1
    bare = next((folder for folder, parts in paths.items() if len(parts) == depth), None)
    if bare is not None:
        place = f"folder {bare!r}" if bare else "the archive's root"
        raise InvalidData(
            f"some files lie in {place} and others in folders below: use a folder for each class, or none"
        )
    classes = {folder: parts[depth] for folder, parts in paths.items()}
    if {name.lower() for name in classes.values()} <= _SPLITS:
        raise InvalidData(
            f"the folders {sorted(set(classes.values()))} are splits, not classes: send one of them alone"
        )
    return classes
