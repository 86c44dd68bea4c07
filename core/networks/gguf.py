"""Folders whose weights are a GGUF file, as llama.cpp has them: transformers reads it, and its tokenizer with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def gguf_of(folder: Path) -> dict[str, str]:
    """How to open a folder whose weights are a GGUF file, as an argument of `from_pretrained`; else nothing."""
    files = sorted(folder.glob("*.gguf"))
    return {"gguf_file": files[0].name} if files and not any(folder.glob("*.safetensors")) else {}


def forget_quantization(network: Any) -> None:
    """Make a network that was read from GGUF one like any other: its weights are whole by now, and can be saved."""
    quantizer = getattr(network, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(network)
