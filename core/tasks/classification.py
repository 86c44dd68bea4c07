"""Naming the class of an image, a text, a recording or a row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from core.data.profile import Kind, Profile
from core.data.recordings import Hearing
from core.errors import InvalidData, InvalidSpec
from core.networks.adapting import HeadOnly, has_fixed_features
from core.networks.building import standardize
from core.networks.classifier import Classifier
from core.networks.hearing import Ears, ears_of
from core.networks.mean_pooling import pool_by_mean
from core.networks.opening import Opened, image_shape, open_base, reinitialized
from core.tasks.task import TaskType, TuningSpec
from core.training.augmentation import augment
from core.training.classification import (
    Prepared,
    class_weights,
    cross_entropy,
    evaluate,
    hardest_of,
    prepare,
    prepare_validation,
    write_results,
)
from core.training.devices import autocast
from core.training.hardest import ExampleLosses, write_hardest
from core.training.labelled import ImageSize, Labelled, Sound, check_labelled, read_training_data
from core.training.run import Run


@dataclass
class ClassificationTask:
    """A pretrained classifier with a head for the classes of the data set."""

    spec: TuningSpec
    run: Run
    classifier: Classifier
    new_parameters: frozenset[str]
    training: Prepared
    held_out: Prepared | None
    weights: torch.Tensor  # [classes] of each class in the loss
    data: Labelled  # the training examples as they were read
    head_only: HeadOnly | None = None

    def __post_init__(self) -> None:
        self.example_losses = ExampleLosses(len(self.data), self.run.device)
        self.run.track(example_losses=self.example_losses)

    @property
    def network(self) -> nn.Module:
        """The whole classifier."""
        return self.classifier.network

    @network.setter
    def network(self, network: nn.Module) -> None:
        self.classifier = self.classifier.with_network(network)

    @property
    def head(self) -> tuple[str, ...]:
        """What makes logits of features."""
        return (next(name for name, module in self.network.named_modules() if module is self.classifier.head),)

    @property
    def examples(self) -> int:
        """How many there are to learn from."""
        return len(self.training.labels)

    @property
    def answering(self) -> Classifier | HeadOnly:
        """What takes the prepared examples: the classifier, or its head where these are features."""
        return self.head_only or self.classifier

    def freeze(self, *, is_head_alone: bool) -> None:
        """Let the encoder answer once for all epochs, if it always sees the same examples."""
        is_augmented = self.spec.jitter or self.spec.horizontal_flip
        if is_head_alone and not is_augmented and has_fixed_features(self.classifier, self.training.examples):
            self.head_only = HeadOnly(self.classifier)
            self.training = _of_features(self.head_only, self.training)
            self.held_out = self.held_out and _of_features(self.head_only, self.held_out)

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Any:
        """Examples, their labels, and which they are."""
        return augment(self.training.examples[rows], self.spec, generator=generator), self.training.labels[rows], rows

    def loss_of(self, part: Any) -> torch.Tensor:
        """Weighted cross-entropy, summed."""
        x, truth, rows = part
        with autocast(self.spec.precision, self.run.device):
            logits = self.answering.logits(x)
        losses = cross_entropy(logits.float(), truth, smoothing=self.spec.label_smoothing, weights=self.weights)
        self.example_losses.note(rows, losses)
        return losses.sum()

    def over(self, batch: Any) -> float:
        """Every example has a loss."""
        return float(len(batch[1]))

    def evaluate(self) -> Mapping[str, float] | None:
        """Loss, accuracy and F1."""
        return None if self.held_out is None else evaluate(self.answering, self.held_out).metrics()

    def write_results(self) -> Mapping[str, float]:
        """The classifier, its confusion matrix, and the examples that it learned worst."""
        if hardest := hardest_of(self.answering, self.training, self.example_losses):
            write_hardest(hardest, self.data.numbers, self.data.examples, self.run.artifacts)
        return write_results(self.answering, self.run, training=self.training, validation=self.held_out)


def _of_features(head: HeadOnly, data: Prepared) -> Prepared:
    """The data with the encoder's answers in place of the examples."""
    return Prepared(head.prepare(data.examples), data.labels)


def open_task(spec: TuningSpec, run: Run) -> ClassificationTask:
    """The base with a head for the classes of the data."""
    images, sound = ImageSize(), Sound()
    if spec.task == "image_classification":
        channels, height, width = image_shape(run.inputs["base"], param="base")
        images = ImageSize((height, width), channels if channels in (1, 3) else None)
    elif spec.task == "audio_classification":
        sound = _sound_for(ears_of(run.inputs["base"], param="base"), spec)
    training, validation = read_training_data(spec, run, images=images, sound=sound)
    opened = _open_classifier(spec, training, run)
    classifier = opened.classifier
    return ClassificationTask(
        spec=spec,
        run=run,
        classifier=classifier,
        new_parameters=opened.new_parameters,
        training=prepare(classifier, training, run),
        held_out=prepare_validation(classifier, validation, run),
        weights=class_weights(spec.class_weights, training).to(run.device),
        data=training,
    )


def _sound_for(ears: Ears, spec: TuningSpec) -> Sound:
    """How recordings are read for a base with such ears."""
    if ears.rate is not None:
        return Sound(rate=ears.rate)
    if spec.max_seconds is not None:
        raise InvalidSpec(f"max_seconds would have no effect: the base hears {ears.frames} frames", param="max_seconds")
    return Sound(hearing=ears.hearing or Hearing(), frames=ears.frames)


def _open_classifier(spec: TuningSpec, training: Labelled, run: Run) -> Opened:
    classifier, new = open_base(run.inputs["base"], training.kind, class_names=training.class_names, param="base")
    if training.kind is Kind.TABLE and isinstance(training.examples, torch.Tensor):
        classifier.check_columns(training.examples.shape[1], training.columns)
    if training.kind is Kind.AUDIO and isinstance(training.examples, torch.Tensor):
        _check_frames(classifier, training)
    if spec.max_length is not None:
        classifier = replace(classifier, max_length=shortened(spec.max_length, classifier.max_length))
    if spec.reinitialize:
        classifier = reinitialized(classifier)
        if isinstance(training.examples, torch.Tensor):
            standardize(classifier.network, training.examples)
    if spec.pooling is not None:
        pool_by_mean(classifier.network)
        new = frozenset(name for name in new if ".pooler." not in name)  # that has its weights now
    return Opened(classifier.on(run.device), new)


def _check_frames(classifier: Classifier, training: Labelled) -> None:
    """Raise InvalidData where the base learned from frames of another make."""
    assert isinstance(training.examples, torch.Tensor) and classifier.shape is not None  # noqa: S101, PT018 - frames
    if classifier.hearing != training.hearing or training.examples.shape[1] != classifier.shape[0]:
        wanted = "recordings" if classifier.hearing else f"an .npz of frames with {classifier.shape[0]} numbers"
        raise InvalidData(
            f"the base learned from {wanted}, and the data set holds others: send the same", param="dataset"
        )


def shortened(wanted: int, limit: int) -> int:
    """`wanted`, if the base can take so many tokens; raises InvalidSpec."""
    if wanted > limit:
        raise InvalidSpec(f"max_length is {wanted}, and the base takes at most {limit} tokens", param="max_length")
    return wanted


def check(spec: TuningSpec, profile: Profile) -> None:
    """Refuse data without classes."""
    check_labelled(spec, profile)


IMAGES = TaskType(reads=(Kind.IMAGES,), check=check, open=open_task)
TEXTS = TaskType(reads=(Kind.TEXT,), check=check, open=open_task)
TABLES = TaskType(reads=(Kind.TABLE,), check=check, open=open_task)
SOUNDS = TaskType(reads=(Kind.AUDIO,), check=check, open=open_task)
