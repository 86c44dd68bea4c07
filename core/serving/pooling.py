"""One vector from the vectors of a text's tokens, as a sentence-transformers folder says, else by their mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from core.errors import InvalidData

MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
KNOWN = (*MODES.values(),)


@dataclass(frozen=True)
class Pooling:
    """How tokens' vectors become one, and whether it has unit length; `max_length`: of a text in tokens, if limited."""

    mode: str = "mean"
    is_normalized: bool = True
    max_length: int | None = None

    def __call__(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Vectors [texts, size] of states [texts, tokens, size] where `mask` [texts, tokens] is 1; padded behind."""
        found = self._pooled(states, mask.unsqueeze(-1).to(states.dtype))
        return functional.normalize(found, dim=-1) if self.is_normalized else found

    def _pooled(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        counts = mask.sum(1).clamp(min=1e-9)
        if self.mode == "cls":
            return states[:, 0]
        if self.mode == "max":
            return states.masked_fill(mask == 0, float("-inf")).amax(1)
        if self.mode == "lasttoken":
            return states[torch.arange(len(states)), counts.squeeze(-1).long() - 1]
        total = (states * mask).sum(1)
        return total / (counts.sqrt() if self.mode == "mean_sqrt_len_tokens" else counts)


def read_pooling(folder: Path) -> Pooling:
    """What modules.json and the folders that it names say; raises InvalidData for modules that are not known here.

    Without it: the mean, at unit length.
    """
    if not (folder / "modules.json").exists():
        return Pooling()
    mode, is_normalized = "mean", False
    for module in _read(folder / "modules.json"):
        kind = str(module["type"]).rpartition(".")[2]
        if kind == "Pooling":
            mode = _mode(_read(folder / module["path"] / "config.json"))
        elif kind == "Normalize":
            is_normalized = True
        elif kind != "Transformer":
            raise InvalidData(f"modules.json names a {kind}, which is not known here", param="model")
    sentence = folder / "sentence_bert_config.json"
    return Pooling(mode, is_normalized, _read(sentence).get("max_seq_length") if sentence.exists() else None)


def _mode(config: dict[str, Any]) -> str:
    """Of the older form, a switch for each mode, and of the newer, which names it."""
    found = [mode for switch, mode in MODES.items() if config.get(switch)] or [config.get("pooling_mode", "mean")]
    if len(found) != 1 or found[0] not in KNOWN:
        raise InvalidData(f"pooling of {found} is not known here: one of {', '.join(KNOWN)} is", param="model")
    return str(found[0])


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidData(f"{path.name} cannot be read: {error}", param="model") from None
