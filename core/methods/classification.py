"""Supervised classification from scratch: of tables, images, recordings and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field

from core.data.examples import write_images
from core.data.profile import Kind, Profile
from core.errors import InvalidSpec
from core.networks.architectures import DEFAULTS, Architecture, check_image_shape, check_kind
from core.networks.building import build_classifier
from core.networks.classifier import Classifier
from core.registry import Example, method
from core.training.augmentation import augment
from core.training.batches import Batches
from core.training.classification import (
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
from core.training.labelled import KINDS, ImageSize, Labelled, LabelledSpec, check_labelled, read_training_data
from core.training.learning import Learning
from core.training.run import Run

EXAMPLE = Example(
    spec={
        "method": "classification",
        "architecture": {"architecture": "convnet", "channels": [8, 16], "dropout": 0.1},
        "epochs": 6,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "jitter": 1,
        "validation_fraction": 0.2,
    },
    write_dataset=write_images,
)


class ClassificationSpec(LabelledSpec):
    """Supervised training of a classifier from scratch: dense, convolutional, residual or transformer."""

    method: Literal["classification"] = Field("classification", description="The training method.")
    architecture: Architecture | None = Field(
        None, description="The network; none: mlp for tables, convnet for images and recordings, bert for texts."
    )
    image_size: int | None = Field(
        None, ge=1, le=1024, description="Resize images to this many pixels a side; none: all are of one size."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Part of each target that is spread over all classes.")
    class_weights: Literal["balanced"] | None = Field(
        None, description="Whether rare classes count as much as frequent ones (balanced)."
    )
    epochs: int | None = Field(20, ge=1, le=100_000, description="Passes over the data set.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Decoupled weight decay (AdamW).")


def check(spec: ClassificationSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    check_labelled(spec, profile)
    if spec.image_size is not None and profile.kind is not Kind.IMAGES:
        raise InvalidSpec(f"image_size is for images; the data set holds {profile.kind.value}", param="image_size")
    architecture = spec.architecture or DEFAULTS[profile.kind]
    check_kind(architecture, profile.kind, param="architecture")
    if profile.kind is Kind.IMAGES and profile.shape is not None:
        size = (spec.image_size, spec.image_size) if spec.image_size is not None else profile.shape[1:]
        check_image_shape(architecture, (profile.shape[0], *size))


@method(
    reads=(*KINDS, Kind.AUDIO),
    paper="Bishop 2006, Pattern recognition and machine learning; label smoothing: Szegedy et al. 2016",
    opens_with="safetensors; resnet, vit and bert: transformers (AutoModelForImageClassification, "
    "AutoModelForSequenceClassification, AutoTokenizer)",
    example=EXAMPLE,
    check=check,
)
def train(spec: ClassificationSpec, run: Run) -> Mapping[str, float]:
    """Descend the cross-entropy of the true classes, batch by batch."""
    training, validation = read_training_data(spec, run, images=ImageSize(spec.image_size))
    classifier = new_classifier(spec, training).on(run.device)
    prepared, held_out = prepare(classifier, training, run), prepare_validation(classifier, validation, run)
    weights = class_weights(spec.class_weights, training).to(run.device)
    batches = Batches.of(len(training), spec)
    learning = Learning(classifier.network, spec, run, total=len(batches))
    example_losses = ExampleLosses(len(training), run.device)
    run.track(example_losses=example_losses)

    def loss_of(part: tuple[Any, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x, truth, rows = part
        with autocast(spec.precision, run.device):
            logits = classifier.logits(x)
        losses = cross_entropy(logits.float(), truth, smoothing=spec.label_smoothing, weights=weights)
        example_losses.note(rows, losses)
        return losses.sum()

    for batch in run.steps(batches):
        classifier.network.train()
        drawn = augment(prepared.examples[batch.rows], spec, generator=run.generator)
        run.log(loss=learning.descend((drawn, prepared.labels[batch.rows], batch.rows), loss_of))
        if batch.is_epoch_end and held_out is not None:
            learning.validate(lambda: evaluate(classifier, held_out).metrics())

    learning.finish()
    if hardest := hardest_of(classifier, prepared, example_losses):
        write_hardest(hardest, training.numbers, training.examples, run.artifacts)
    return write_results(classifier, run, training=prepared, validation=held_out)


def new_classifier(spec: ClassificationSpec, training: Labelled) -> Classifier:
    """The network that the spec asks for, or the usual one for this kind of data, to fit the examples."""
    architecture = spec.architecture or DEFAULTS[training.kind]
    check_kind(architecture, training.kind, param="architecture")
    return build_classifier(
        architecture,
        training.examples,
        kind=training.kind,
        class_names=training.class_names,
        columns=training.columns,
        hearing=training.hearing,
    )
