"""Which device and which arithmetic a run uses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from core.errors import InvalidSpec


def choose_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; raises InvalidSpec when a GPU is asked for and there is none."""
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if wanted == "cuda":
        raise InvalidSpec(
            "device 'cuda' was asked for, but this worker has no GPU; use 'auto' or 'cpu'", param="device"
        )
    return torch.device("cpu")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of the forward pass. `auto` is bfloat16 on a GPU that has it, float32 elsewhere: on a CPU without
    bfloat16 units it is slower than float32.
    """
    if precision == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bfloat16" if has_bfloat16 else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
