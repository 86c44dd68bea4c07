"""Libraries to compare with, installed each into a folder of its own below `.cache/peers`; see requirements.txt."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

PEERS = Path(__file__).parents[1] / ".cache" / "peers"


def peer(name: str, module: str | None = None) -> ModuleType:
    """The module of an installed peer; raises ModuleNotFoundError that says how to install it."""
    folder = str(PEERS / name)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(module or name)
    except ModuleNotFoundError as error:
        command = f"pip install --no-deps --target .cache/peers/{name}"
        raise ModuleNotFoundError(f"{error}: run `{command}` with what benchmarks/requirements.txt names") from error
