"""Classifiers of every make behind one face: how examples become what the network takes, its logits, its features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.data.profile import Kind
from core.data.recordings import Hearing
from core.errors import InvalidData
from core.networks.hearing import WaveInputs
from core.networks.saving import save_network
from core.networks.token_ids import TokenIds, by_length, encode, shortest

Batch = torch.Tensor | Mapping[str, torch.Tensor]
Examples = torch.Tensor | TokenIds | WaveInputs
GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow has it
HEADS = ("head", "classifier", "score")


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation that a transformers model wants taken off pixels in [0, 1], a number a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def applied(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels [rows, channels, height, width] in [0, 1] as the model takes them."""
        mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std


@dataclass(frozen=True)
class Classifier:
    """A network, the classes it names, and how it reads examples.

    `shape`: (features,), (features, frames) or (channels, height, width), None for text and waves. `scaling`: for
    images of transformers models; our own networks standardise inside. `columns`: names of a table's features, where
    they are known. `hearing`: how waves become frames. `extractor`: what transformers models hear waves with.
    """

    network: nn.Module
    kind: Kind
    class_names: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    scaling: Scaling | None = None
    tokenizer: Any = None
    max_length: int = 0
    columns: tuple[str, ...] = ()
    hearing: Hearing | None = None
    extractor: Any = None

    @property
    def is_ours(self) -> bool:
        """Whether the network is one of core.networks, with an `encoder` and a `head`."""
        return str(getattr(self.network, "model_type", "")).startswith("weightworks-")

    @property
    def head(self) -> nn.Module:
        """What makes logits of features; raises InvalidData where it goes by a name unknown here."""
        for name in HEADS:
            found = getattr(self.network, name, None)
            if isinstance(found, nn.Module):
                return found
        raise InvalidData(f"{type(self.network).__name__} has no part called {', '.join(HEADS)}", param="model")

    def prepare(self, examples: torch.Tensor | Sequence[Any]) -> Examples:
        """All examples in the form that batches are taken from: texts become tokens, tensors stay as they are."""
        if isinstance(examples, torch.Tensor):
            return examples
        if self.extractor is not None:
            return WaveInputs(examples, self.extractor, self.network)
        return encode(examples, self.tokenizer, max_length=self.max_length)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits [rows, classes] of uint8 pixels [rows, channels, height, width], features, frames, or tokens."""
        if isinstance(batch, torch.Tensor) or not self._is_text_on_cpu(batch):
            return self._logits(batch)
        groups = by_length(batch["attention_mask"].sum(1))
        if len(groups) == 1:
            return self._logits(batch)
        found = [self._logits(shortest(batch, rows)) for rows in groups]
        return torch.cat(found)[torch.cat(groups).argsort()]

    def _is_text_on_cpu(self, batch: Mapping[str, torch.Tensor]) -> bool:
        """Whether padding costs as much as tokens do: a GPU computes it beside them."""
        is_on_cpu = next(self.network.parameters()).device.type == "cpu"
        return is_on_cpu and self.kind is Kind.TEXT and "attention_mask" in batch

    def _logits(self, batch: Batch) -> torch.Tensor:
        answer = self.network(**self._arguments(batch))
        logits: torch.Tensor = answer if isinstance(answer, torch.Tensor) else answer.logits
        return logits

    def logits_and_features(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and what the head made them of: [rows, width], or with further dimensions."""
        seen: list[torch.Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self._logits(batch)
        finally:
            hook.remove()
        return logits, seen[0]

    def _arguments(self, batch: Batch) -> dict[str, torch.Tensor]:
        device = next(self.network.parameters()).device
        if not isinstance(batch, torch.Tensor):
            return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        x = batch.to(device, non_blocking=True)
        if self.kind is not Kind.IMAGES:
            return {"x": x}
        assert self.shape is not None  # noqa: S101 - images have one
        x = fitted(x.float() / 255 if x.dtype == torch.uint8 else x, self.shape)
        if self.scaling is None:
            return {"x": x}
        return {"pixel_values": self.scaling.applied(x)}

    def check_columns(self, count: int, names: Sequence[str]) -> None:
        """Raise InvalidData where a table's columns are not those that the network takes."""
        wanted = self.shape[0] if self.shape else 0
        if count != wanted or (self.columns and tuple(names) != self.columns):
            listed = ", ".join(self.columns[:8]) + (" ..." if len(self.columns) > 8 else "")
            raise InvalidData(
                f"the model takes {wanted} columns ({listed or 'unnamed'}), and the table has others", param="dataset"
            )

    def on(self, device: torch.device) -> Classifier:
        """The same, its network moved to `device`."""
        self.network.to(device)
        return self

    def with_network(self, network: nn.Module) -> Classifier:
        """The same with another network."""
        return replace(self, network=network)

    def save(self, folder: Path) -> None:
        """Write weights and config.json, and what reads the examples: tokenizer or preprocessor_config.json."""
        names = {"id2label": dict(enumerate(self.class_names)), "label2id": _numbers(self.class_names)}
        if self.is_ours:
            columns = {"columns": list(self.columns)} if self.columns else {}
            hearing = {"hearing": asdict(self.hearing)} if self.hearing is not None else {}
            save_network(self.network, folder, **names, **columns, **hearing)
            return
        for name, value in names.items():
            setattr(self.network.config, name, value)
        self.network.save_pretrained(folder)  # type: ignore[operator]
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        if self.extractor is not None:
            self.extractor.save_pretrained(folder)
        if self.scaling is not None and self.shape is not None:
            write_preprocessor(folder / "preprocessor_config.json", self.scaling, self.shape)


def fitted(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Pixels `x` [rows, channels, height, width] in [0, 1] with the channels and the size of `shape`."""
    channels, *size = shape
    if channels == 1 and x.shape[1] == 3:
        x = (x * torch.tensor(GREY, device=x.device)[:, None, None]).sum(1, keepdim=True)
    elif channels == 3 and x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    if list(x.shape[2:]) != size:
        x = functional.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    return x


def _numbers(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def write_preprocessor(
    path: Path, scaling: Scaling, shape: Sequence[int], *, processor: str = "ViTImageProcessor"
) -> None:
    """What `AutoImageProcessor` reads; its own `save_pretrained` would need torchvision."""
    values = {
        "image_processor_type": processor,
        "do_resize": True,
        "size": {"height": shape[1], "width": shape[2]},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(scaling.mean),
        "image_std": list(scaling.std),
    }
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
