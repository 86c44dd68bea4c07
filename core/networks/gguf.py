"""Folders whose weights are a GGUF file, as llama.cpp has them: transformers reads it, and its tokenizer with it."""

from __future__ import annotations

from pathlib import Path


def gguf_of(folder: Path) -> dict[str, str]:
    """How to open a folder whose weights are a GGUF file, as an argument of `from_pretrained`; else nothing."""
    files = sorted(folder.glob("*.gguf"))
    return {"gguf_file": files[0].name} if files and not any(folder.glob("*.safetensors")) else {}
