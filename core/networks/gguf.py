"""Folders whose weights are a GGUF file, as llama.cpp has them: transformers reads it, and its tokenizer with it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any


def gguf_of(folder: Path) -> dict[str, str]:
    """How to open a folder whose weights are a GGUF file, as an argument of `from_pretrained`; else nothing."""
    files = sorted(folder.glob("*.gguf"))
    return {"gguf_file": files[0].name} if files and not any(folder.glob("*.safetensors")) else {}


def from_folder(auto_class: Any, folder: Path, **arguments: Any) -> Any:
    """What `auto_class.from_pretrained` makes of a folder, with these arguments: of its GGUF file, if they name one.

    Nothing in the folder is executed. Raises what transformers raises, and ValueError for a file that is cut short.
    """
    arguments |= {"trust_remote_code": False, "local_files_only": True}
    if "gguf_file" not in arguments:
        return auto_class.from_pretrained(folder, **arguments)
    from core.networks.gguf_reading import quick_reading  # for few models

    try:
        with quick_reading():
            return auto_class.from_pretrained(folder, **arguments)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"{arguments['gguf_file']} is cut short, or no GGUF file: {error}") from None


def forget_quantization(network: Any) -> None:
    """Make a network that was read from GGUF one like any other: its weights are whole by now, and can be saved."""
    quantizer = getattr(network, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(network)
