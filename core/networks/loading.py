"""Opens any artifact folder, ours or Hugging Face's, as a ready module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from core.errors import InvalidData
from core.networks.gguf import forget_quantization, from_folder, gguf_of
from core.networks.saving import is_network_config, load_network


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json; raises InvalidData if there is none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / "adapter_config.json").exists():
            raise InvalidData(
                "the model folder holds an adapter alone: merge it into its base", param="model"
            ) from None
        raise InvalidData("the model folder has no config.json", param="model") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidData(f"config.json is not JSON: {error}", param="model") from None
    if not isinstance(config, dict):
        raise InvalidData("config.json must hold an object", param="model")
    return config


def load_model(folder: str | Path) -> nn.Module:
    """The trained model in `folder`, in evaluation mode.

    Opens every artifact folder made here (adapters are merged into their weights), any Hugging Face folder with
    safetensors weights, and language models of GGUF files.
    Nothing from the folder is executed, and pickled weights are refused. Raises InvalidData.
    """
    folder = Path(folder)
    if gguf := gguf_of(folder):
        language_model: nn.Module = from_folder(transformers.AutoModelForCausalLM, folder, **gguf)
        forget_quantization(language_model)
        return language_model.eval()
    config = read_config(folder)
    if is_network_config(config):
        return load_network(folder)
    architectures = config.get("architectures") or []
    cls = getattr(transformers, str(architectures[0]), None) if architectures else transformers.AutoModel
    if cls is None or not hasattr(cls, "from_pretrained"):
        raise InvalidData(f"config.json names the unknown architecture '{architectures[0]}'", param="model")
    module: nn.Module = cls.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    return module.eval()
