"""Opens a folder as a classifier, or as what a new classifier starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from torch import nn

from core.data.profile import Kind
from core.data.recordings import Hearing
from core.errors import InvalidData
from core.networks.classifier import Classifier, Scaling
from core.networks.hearing import open_extractor
from core.networks.loading import read_config
from core.networks.pretrained import open_config, open_pretrained, open_tokenizer
from core.networks.saving import is_network_config, load_network

DEFAULT_SIZE = 224
AUTO_CLASSES = {
    Kind.IMAGES: ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING"),
    Kind.TEXT: ("AutoModelForSequenceClassification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"),
    Kind.AUDIO: ("AutoModelForAudioClassification", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING"),
}
KINDS = {1: Kind.TABLE, 2: Kind.AUDIO, 3: Kind.IMAGES}  # of our own classifiers, by the dimensions of an example


class Opened(NamedTuple):
    """A classifier, and the parameters that the folder had no weights for."""

    classifier: Classifier
    new_parameters: frozenset[str]


def open_classifier(folder: Path, *, param: str) -> Classifier:
    """The classifier in `folder`, in evaluation mode; raises InvalidData, of field `param`, for any other model."""
    config = read_config(folder)
    if is_network_config(config):
        return _open_ours(folder, config, param=param)
    kind = next((kind for kind in AUTO_CLASSES if _is_classifier_of(kind, config)), None)
    if kind is None:
        raise InvalidData(
            f"the model is no classifier (architectures: {config.get('architectures')}): name one that a job of method "
            "classification or fine_tuning made, or a folder of ForImageClassification or ForSequenceClassification",
            param=param,
        )
    opened = open_transformer(folder, kind, class_names=None, param=param)
    if opened.new_parameters:
        raise InvalidData(f"the model lacks weights: {', '.join(sorted(opened.new_parameters)[:3])}", param=param)
    return opened.classifier


def _is_classifier_of(kind: Kind, config: Mapping[str, Any]) -> bool:
    """Whether a transformers model with this config.json has a head for the classes of such data.

    The classifiers of waves are called ForSequenceClassification too.
    """
    names = getattr(transformers.models.auto.modeling_auto, f"{AUTO_CLASSES[kind][1]}_NAMES")
    found = names.get(config.get("model_type"), ())
    heads = {found} if isinstance(found, str) else set(found)
    return not heads.isdisjoint(config.get("architectures") or ())


def open_base(folder: Path, kind: Kind, *, class_names: Sequence[str], param: str) -> Opened:
    """A classifier of these classes on the model in `folder`; it gets a new head where its own names other classes."""
    config = read_config(folder)
    if not is_network_config(config):
        return open_transformer(folder, kind, class_names=tuple(class_names), param=param)
    found = _open_ours(folder, config, param=param)
    if found.kind is not kind:
        raise InvalidData(
            f"the model reads {found.kind.value}, and the data set holds {kind.value}: name a base of that kind",
            param=param,
        )
    if found.class_names == tuple(class_names):
        return Opened(found, frozenset())
    arguments = {**_arguments(found.network), "classes": len(class_names)}
    network = type(found.network)(**arguments)
    kept = {name: tensor for name, tensor in found.network.state_dict().items() if not name.startswith("head.")}
    missing = network.load_state_dict(kept, strict=False).missing_keys
    return Opened(replace(found, network=network, class_names=tuple(class_names)), frozenset(missing))


def reinitialized(classifier: Classifier) -> Classifier:
    """The same architecture with fresh weights; the standardisation inside our own networks goes too."""
    network = classifier.network
    arguments = _arguments(network) if classifier.is_ours else {"config": network.config}
    return classifier.with_network(type(network)(**arguments))


def _arguments(network: nn.Module) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(network.config)  # type: ignore[arg-type]  # the classes marked @network have it
    return arguments


def _open_ours(folder: Path, config: Mapping[str, Any], *, param: str) -> Classifier:
    labels = config.get("id2label")
    if not isinstance(labels, Mapping):
        raise InvalidData(
            f"the model ({config['model_type']}) is no classifier: name one that a job of method classification or "
            "fine_tuning made",
            param=param,
        )
    network = load_network(folder)
    shape = tuple(network.shape)  # type: ignore[arg-type]  # our classifiers have it
    hearing = Hearing(**config["hearing"]) if config.get("hearing") else None
    columns = tuple(config.get("columns", ()))
    return Classifier(network, KINDS[len(shape)], names_of(labels), shape=shape, columns=columns, hearing=hearing)


def names_of(labels: Mapping[Any, str]) -> tuple[str, ...]:
    """The classes of an `id2label` in the order of their numbers."""
    return tuple(labels[key] for key in sorted(labels, key=int))


def open_transformer(folder: Path, kind: Kind, *, class_names: tuple[str, ...] | None, param: str) -> Opened:
    """A transformers model with a head for these classes, or for its own where None; raises InvalidData.

    Nothing from the folder is executed, and pickled weights are refused.
    """
    config = _read_transformers_config(folder, kind, param=param)
    if class_names is not None:
        is_same = class_names == names_of(config.id2label) and _is_classifier_of(kind, config.to_dict())
        config.problem_type = "single_label_classification"
        config.id2label = dict(enumerate(class_names))
        config.label2id = {name: number for number, name in enumerate(class_names)}
    network, new = open_pretrained(folder, AUTO_CLASSES[kind][0], param=param, config=config)
    found = Classifier(network, kind, names_of(config.id2label))
    found = READERS[kind](found, folder, param)
    if class_names is not None and not is_same:
        new |= _fresh_head(found)
    return Opened(found, new)


def _read_transformers_config(folder: Path, kind: Kind, *, param: str) -> Any:
    config = open_config(folder, param=param)
    if kind not in AUTO_CLASSES or type(config) not in getattr(transformers, AUTO_CLASSES[kind][1]):
        raise InvalidData(
            f"a model of type '{config.model_type}' cannot learn to classify {kind.value}: name a base for that kind "
            "of data (BERT and its like for text, ViT or ResNet for images, Wav2Vec2 for recordings, mlp for tables)",
            param=param,
        )
    return config


def _fresh_head(classifier: Classifier) -> frozenset[str]:
    """Forget what the head knew of other classes; answers the names of its parameters."""
    prefix = next(name for name, module in classifier.network.named_modules() if module is classifier.head)
    for module in classifier.head.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return frozenset(f"{prefix}.{name}" for name, _ in classifier.head.named_parameters())


def _reading_text(classifier: Classifier, folder: Path, param: str) -> Classifier:
    reading = open_tokenizer(folder, classifier.network, param=param)
    return replace(classifier, tokenizer=reading.tokenizer, max_length=reading.max_length)


def _reading_images(classifier: Classifier, folder: Path, param: str) -> Classifier:
    shape, scaling = image_format(folder, classifier.network.config.to_dict(), param)  # type: ignore[union-attr,operator]
    return replace(classifier, shape=shape, scaling=scaling)


def _reading_waves(classifier: Classifier, folder: Path, param: str) -> Classifier:
    return replace(classifier, extractor=open_extractor(folder, param=param))


READERS = {Kind.TEXT: _reading_text, Kind.IMAGES: _reading_images, Kind.AUDIO: _reading_waves}


def image_shape(folder: Path, *, param: str) -> tuple[int, int, int]:
    """Channels, height and width of the images that the model in `folder` takes; raises InvalidData."""
    config = read_config(folder)
    if not is_network_config(config):
        return image_format(folder, config, param)[0]
    shape = config["arguments"].get("shape")
    if shape is None or len(shape) != 3:
        raise InvalidData(f"the model ({config['model_type']}) does not read images: name one that does", param=param)
    return (shape[0], shape[1], shape[2])


def image_format(folder: Path, config: Mapping[str, Any], param: str) -> tuple[tuple[int, int, int], Scaling]:
    """What preprocessor_config.json tells, completed by config.json."""
    path = folder / "preprocessor_config.json"
    if not path.exists():
        raise InvalidData(
            "the model folder has no preprocessor_config.json, which tells the size and the scaling of its images: put "
            "it beside config.json (a model of texts does not have one: name a base for images)",
            param=param,
        )
    read = json.loads(path.read_text(encoding="utf-8"))
    channels = config.get("num_channels", 3)
    size = _size_of(read.get("size") or config.get("image_size", DEFAULT_SIZE))
    values = read if read.get("do_normalize", True) else {}
    mean, std = values.get("image_mean") or [0.0] * channels, values.get("image_std") or [1.0] * channels
    return (channels, *size), Scaling(tuple(mean), tuple(std))


def _size_of(size: Any) -> tuple[int, int]:
    """Height and width from any of the ways in which preprocessors write them."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or (size["height"], size["width"])
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
