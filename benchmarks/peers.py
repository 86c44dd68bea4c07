"""Libraries to compare with, as `make bench-setup` installs them; see requirements.txt."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PACKAGES = f".cache/bench/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def peer(name: str, module: str | None = None) -> ModuleType:
    """The module of an installed peer; raises ModuleNotFoundError that says how to install it."""
    folder = str(ROOT / PACKAGES)
    if folder not in sys.path:
        sys.path.append(folder)  # behind our own packages
    try:
        return importlib.import_module(module or name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: run `make bench-setup`") from error
