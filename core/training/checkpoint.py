"""Checkpoints as one safetensors file: tensors by path, everything else as JSON in its header. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from core.errors import CheckpointDamaged

FORMAT = "weightworks-checkpoint-1"


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint on disk and what proves it whole."""

    path: Path
    step: int
    bytes: int
    sha256: str
    is_epoch: bool = False  # an epoch ended there


def write_checkpoint(state: Mapping[str, Any], path: Path, *, step: int) -> CheckpointFile:
    """Write `state` (nested dicts, lists, tuples, numbers, text, tensors, arrays) so that `path` is whole or absent."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(state, "", tensors)
    content = save(tensors, metadata={"format": FORMAT, "state": json.dumps(tree)})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return CheckpointFile(path=path, step=step, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def read_checkpoint(path: Path, *, sha256: str | None = None) -> dict[str, Any]:
    """The state that was written; raises CheckpointDamaged if the file is cut short or its hash is another."""
    try:
        if sha256 is not None:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise CheckpointDamaged(f"{path.name} does not match its SHA-256")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointDamaged(f"{path.name} is not a checkpoint of Weightworks")
            tree = json.loads(metadata["state"])
            state = _restore(tree, file)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointDamaged(f"{path.name} cannot be read: {error}") from error
    assert isinstance(state, dict)  # noqa: S101 - write_checkpoint takes a mapping
    return state


# In the JSON tree a plain value stands for itself; {"t": name} is a tensor, {"n": name} a NumPy array,
# {"d": [[key, value]]} a dict (keys may be integers), {"l": [...]} a list, {"u": [...]} a tuple, {"i": "123"} an
# integer too large for JSON readers.


def _flatten(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # Storage may be shared between tied weights: safetensors wants each tensor to own its bytes.
        tensors[place] = value.detach().to("cpu", copy=True).contiguous()
        return {"t": place}
    if isinstance(value, np.ndarray):
        tensors[place] = torch.from_numpy(value.astype(np.int64) if value.dtype == np.uint32 else value.copy())
        return {"n": place, "dtype": str(value.dtype)}
    if isinstance(value, Mapping):
        return {
            "d": [
                [key, _flatten(item, f"{place}.{key}" if place else str(key), tensors)] for key, item in value.items()
            ]
        }
    if isinstance(value, tuple):
        return {"u": [_flatten(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]}
    if isinstance(value, list):
        return {"l": [_flatten(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} (at {place})")


def _restore(tree: Any, file: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "t" in tree:
        return file.get_tensor(tree["t"])
    if "n" in tree:
        return file.get_tensor(tree["n"]).numpy().astype(tree["dtype"])
    if "d" in tree:
        return {key: _restore(item, file) for key, item in tree["d"]}
    items = [_restore(item, file) for item in tree["u" if "u" in tree else "l"]]
    return tuple(items) if "u" in tree else items
