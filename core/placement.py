"""What a job starts from, as local paths for whoever trains it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from core.jobs.inputs import FileInput, ModelInput
from core.storage import Storage, file_key


def place_inputs(
    found: Mapping[str, FileInput | ModelInput], *, storage: Storage, folder: Path
) -> dict[str, dict[str, str]]:
    """A path for each field; models are put together below `folder`. Raises NotFound for what storage lacks.

    An uploaded model comes with its archive, which the trainer unpacks to the path: that may take longer than a
    supervisor may be away. It is unpacked anew by each attempt, so that no copy outlives the upload.
    """
    places = {}
    for field, one in found.items():
        if isinstance(one, ModelInput):
            places[field] = {"path": str(_assemble(one, storage, folder / field))}
        elif one.is_model:
            archive = storage.existing(file_key(one.sha256))
            places[field] = {"path": str(folder / field), "archive": str(archive)}
        else:
            places[field] = {"path": str(storage.existing(file_key(one.sha256)))}
    return places


def _assemble(model: ModelInput, storage: Storage, folder: Path) -> Path:
    """A model's folder, made of hard links to what lies in storage."""
    for path, key in model.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = storage.existing(key)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    return folder
