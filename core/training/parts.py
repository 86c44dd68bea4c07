"""Cuts a batch, whatever it is made of, into parts that fit the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def parts(batch: Any, count: int) -> Sequence[Any]:
    """The batch cut into `count` parts, or as many as it has examples.

    A tensor is cut along its first dimension; in a mapping, a tuple or a named tuple every member is cut alike, and
    None stays None.
    """
    count = min(count, examples_in(batch))
    return [batch] if count <= 1 else [_part(batch, index, count) for index in range(count)]


def examples_in(batch: Any) -> int:
    """How many examples a batch holds; raises TypeError for what cannot be cut."""
    if isinstance(batch, torch.Tensor):
        return len(batch)
    for member in batch.values() if isinstance(batch, Mapping) else batch:
        if member is not None:
            return examples_in(member)
    raise TypeError("a batch of nothing has no examples")


def _part(batch: Any, index: int, count: int) -> Any:
    if batch is None:
        return None
    if isinstance(batch, torch.Tensor):
        return batch.tensor_split(count)[index]
    if isinstance(batch, Mapping):
        return {name: _part(member, index, count) for name, member in batch.items()}
    cut = [_part(member, index, count) for member in batch]
    return type(batch)(*cut) if hasattr(batch, "_fields") else tuple(cut)


def to_device(batch: Any, device: torch.device) -> Any:
    """The same batch with all of its tensors on `device`."""
    if isinstance(batch, torch.Tensor):
        if device.type == "cuda" and batch.device.type == "cpu":
            batch = batch.pin_memory()  # a copy from any other memory would wait for all that the device has to do yet
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: to_device(member, device) for name, member in batch.items()}
    if isinstance(batch, tuple):
        moved = [to_device(member, device) for member in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else tuple(moved)
    return batch
