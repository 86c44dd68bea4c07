"""A network of ours on disk: `model.safetensors` and a `config.json` that names the class and its arguments."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

import core.networks
from core.errors import InvalidData

Class = TypeVar("Class", bound=type[nn.Module])

_classes: dict[str, type[nn.Module]] = {}


def network(name: str) -> Callable[[Class], Class]:
    """Make a module class known under `model_type: weightworks-<name>`.

    The class keeps its constructor's arguments, as JSON values, in `self.config`. One that has files of its own beside
    the weights, such as a vocabulary, takes them up in `read_files(folder)`.
    """

    def register(cls: Class) -> Class:
        cls.model_type = f"weightworks-{name}"  # type: ignore[attr-defined]
        _classes[f"weightworks-{name}"] = cls
        return cls

    return register


def save_network(module: nn.Module, folder: Path, **extra: Any) -> None:
    """Write the weights and the configuration of a class marked with `@network`.

    `extra` goes into config.json beside the constructor's arguments (`id2label`, say).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": module.model_type, "arguments": module.config, **extra}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def is_network_config(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of ours."""
    return str(config.get("model_type", "")).startswith("weightworks-")


def load_network(folder: Path) -> nn.Module:
    """The network that `save_network` wrote, in evaluation mode; raises InvalidData if the folder is not whole."""
    for module in pkgutil.iter_modules(core.networks.__path__):
        importlib.import_module(f"core.networks.{module.name}")
    config = json.loads((folder / "config.json").read_text())
    cls = _classes.get(config["model_type"])
    if cls is None:
        raise InvalidData(f"config.json names the unknown model_type '{config['model_type']}'", param="model")
    built = cls(**config["arguments"])
    built.load_state_dict(load_file(folder / "model.safetensors"))
    if callable(read_files := getattr(built, "read_files", None)):
        read_files(folder)
    return built.eval()
