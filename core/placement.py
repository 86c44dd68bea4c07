"""What a job starts from, as local paths for whoever trains it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import NotFound
from core.jobs.inputs import CheckpointInput, FileInput, Input, ModelInput
from core.storage import Storage, file_key
from core.storage.folders import link_or_copy


def place_inputs(found: Mapping[str, Input], *, storage: Storage, folder: Path) -> dict[str, dict[str, Any]]:
    """A path for each field; models are put together below `folder`. Raises NotFound for what storage lacks.

    An uploaded model comes with its archive, and a checkpoint with its base's place: `core.restoring` makes folders of
    them, in the trainer, for that may take longer than a supervisor may be away. They are made anew by each attempt, so
    that no copy outlives what was uploaded.
    """
    return {field: place_input(one, storage=storage, path=folder / field) for field, one in found.items()}


def place_input(one: Input, *, storage: Storage, path: Path) -> dict[str, Any]:
    """The place of one input: `path`, where it is or is to be made, and what it is made of."""
    if isinstance(one, ModelInput):
        return {"path": str(_assemble(one, storage, path))}
    if isinstance(one, CheckpointInput):
        checkpoint = storage.fetch(one.key, path.with_name(f"{path.name}.safetensors"))
        base = place_input(one.base, storage=storage, path=path.with_name(f"{path.name}.base"))
        return {"path": str(path), "checkpoint": str(checkpoint), "sha256": one.sha256, "base": base}
    if isinstance(one, FileInput) and one.is_model:
        archive = storage.fetch(file_key(one.sha256), path.with_name(f"{path.name}.archive"))
        return {"path": str(path), "archive": str(archive)}
    return {"path": str(storage.fetch(file_key(one.sha256), path))}


def _assemble(model: ModelInput, storage: Storage, folder: Path) -> Path:
    """A model's folder, made of hard links to what lies in storage, or of copies."""
    for path, key in model.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = storage.fetch(key, target)
        if source != target:
            link_or_copy(source, target)
    return folder


@dataclass(frozen=True)
class Saved:
    """A checkpoint in storage, as its row tells of it."""

    key: str
    step: int
    sha256: str


def place_checkpoints(found: Sequence[Saved], *, storage: Storage, folder: Path) -> list[dict[str, Any]]:
    """A path for each checkpoint that a trainer may need: of copies, none behind the first that is whole.

    The path of one that storage lacks leads nowhere: the trainer says so, and takes the next.
    """
    places = []
    for one in found:
        copy = folder / f"step-{one.step:09d}.safetensors"
        try:
            path = storage.fetch(one.key, copy)
        except NotFound:
            path = copy
        places.append({"path": str(path), "sha256": one.sha256, "step": one.step})
        if path == copy and _is_whole(copy, one.sha256):
            break
    return places


def _is_whole(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
