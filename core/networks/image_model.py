"""A transformers model of images with a head for the classes of a task: segmentation or detection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from core.errors import InvalidData
from core.networks.classifier import Scaling, write_preprocessor
from core.networks.opening import image_format, names_of
from core.networks.pretrained import open_config, open_pretrained


@dataclass
class ImageModel:
    """A network, the classes that it tells apart, and the images that it takes: (channels, height, width)."""

    network: nn.Module
    new_parameters: frozenset[str]
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    scaling: Scaling
    processor: str

    @property
    def head(self) -> tuple[str, ...]:
        """All that does not belong to the encoder."""
        encoder = getattr(self.network, "base_model_prefix", "")
        return tuple(name for name, _ in self.network.named_children() if name not in (encoder, "backbone"))

    def answer(self, pixels: torch.Tensor) -> Any:
        """What the network says of uint8 pixels [rows, channels, height, width]."""
        return self.network(pixel_values=self.scaling.applied(pixels.float() / 255))

    def save(self, folder: Path) -> None:
        """Write weights, configuration and what reads the images."""
        self.network.save_pretrained(folder)  # type: ignore[operator]
        write_preprocessor(folder / "preprocessor_config.json", self.scaling, self.shape, processor=self.processor)


def open_image_model(
    folder: Path, auto_class: str, *, class_names: Sequence[str], shape: tuple[int, int, int], reinitialize: bool
) -> ImageModel:
    """The model in `folder` as `transformers.<auto_class>` opens it, for these classes; raises InvalidData.

    What its head knew of other classes is forgotten; with `reinitialize` all is.
    """
    config = open_config(folder, param="base")
    architectures = [cls.__name__ for cls in _classes_of(auto_class, config)]
    is_same = tuple(class_names) == names_of(config.id2label) and not set(architectures).isdisjoint(
        config.architectures or ()
    )
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: number for number, name in enumerate(class_names)}
    network, new = open_pretrained(folder, auto_class, param="base", config=config)
    if reinitialize:
        network = type(network)(config)
    elif not is_same:
        new |= _fresh_answers(network, classes=len(class_names))
    processor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    name = processor.get("image_processor_type") or processor.get("feature_extractor_type") or "ViTImageProcessor"
    return ImageModel(
        network, new, tuple(class_names), shape, image_format(folder, config.to_dict(), "base")[1], str(name)
    )


def _classes_of(auto_class: str, config: Any) -> tuple[type, ...]:
    """The classes behind an Auto class for such a configuration; raises InvalidData where there is none."""
    mapping = getattr(transformers, auto_class)._model_mapping
    if type(config) not in mapping:
        raise InvalidData(
            f"a model of type '{config.model_type}' cannot be opened as {auto_class}: name a base that can "
            "(SegFormer for segmentation, DETR or YOLOS for detection)",
            param="base",
        )
    found = mapping[type(config)]
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _fresh_answers(network: nn.Module, *, classes: int) -> frozenset[str]:
    """Forget the layer that answers with a number for each class (and one for none); answers its parameters."""
    answering = [
        name
        for name, module in network.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", 0)) in (classes, classes + 1)
        and "bbox" not in name
    ]
    layer = network.get_submodule(answering[-1])
    assert isinstance(layer, nn.Linear | nn.Conv2d)  # noqa: S101 - nothing else has as many outputs
    nn.init.normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return frozenset(f"{answering[-1]}.{name}" for name, _ in layer.named_parameters())
