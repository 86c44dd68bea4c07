"""Domain-adversarial training: a classifier for unlabelled examples that look unlike the labelled ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from core.data.examples import write_images, write_other_images
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.networks.answers import vectors
from core.networks.architectures import DEFAULTS, Architecture, Size, check_image_shape, check_kind
from core.networks.building import build_classifier
from core.networks.classifier import Classifier
from core.networks.domains import new_discriminator, reversed_gradient
from core.registry import Example, method
from core.spec import FileReference, file_field
from core.training.augmentation import augment
from core.training.batches import Batches
from core.training.classification import (
    UNKNOWN,
    Evaluation,
    Prepared,
    evaluate,
    prepare,
    prepare_validation,
    sample_rows,
    write_confusion_matrix,
    write_results,
)
from core.training.devices import autocast
from core.training.labelled import (
    KINDS,
    ImageSize,
    Labelled,
    LabelledSpec,
    Sound,
    check_alike,
    check_labelled,
    read_labelled,
    read_training_data,
)
from core.training.learning import Learning
from core.training.run import Run

BLIND = 0.55  # accuracy up to which a discriminator has found nothing
WON = 0.95  # from which on it tells the domains apart


class DomainAdversarialSpec(LabelledSpec):
    """Domain adaptation: a classifier of labelled examples learns to serve unlabelled ones that look different."""

    method: Literal["domain_adversarial"] = Field("domain_adversarial", description="The training method.")
    target: FileReference = file_field(
        description="Id of the uploaded file of the other domain; classes in it are counted, and never learned from."
    )
    target_label: str | None = Field(
        None, min_length=1, max_length=200, description="Column of the target's classes, if any; none: found by name."
    )
    architecture: Architecture | None = Field(
        None, description="The network; none: mlp for tables, convnet for images, bert for texts."
    )
    image_size: int | None = Field(
        None, ge=1, le=1024, description="Resize images to this many pixels a side; none: to those of the data set."
    )
    domain_weight: float = Field(
        0.3, ge=0, le=100, description="How strongly features forget their domain, in the end; 0: not, the baseline."
    )
    discriminator_size: Size = Field(
        128, description="Hidden units of the discriminator, which guesses an example's domain from its features."
    )
    epochs: int | None = Field(20, ge=1, le=100_000, description="Passes over the data set.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Decoupled weight decay (AdamW).")


def check(spec: DomainAdversarialSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    check_labelled(spec, profile)
    if spec.image_size is not None and profile.kind is not Kind.IMAGES:
        raise InvalidSpec(f"image_size is for images; the data set holds {profile.kind.value}", param="image_size")
    if spec.target_label is not None and profile.kind is Kind.IMAGES:
        raise InvalidSpec("it names a column, and the classes of images are their folders", param="target_label")
    architecture = spec.architecture or DEFAULTS[profile.kind]
    check_kind(architecture, profile.kind, param="architecture")
    if profile.kind is Kind.IMAGES and profile.shape is not None:
        size = (spec.image_size, spec.image_size) if spec.image_size is not None else profile.shape[1:]
        check_image_shape(architecture, (profile.shape[0], *size))


def reversal(progress: float) -> float:
    """How far the gradient is turned around after a part of the steps, from 0 to nearly 1 (Ganin et al. 2016, 5.2.2).

    The discriminator must first learn what the features are to forget.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


def class_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy [rows] of `logits` [rows, classes]; 0 for rows whose label is UNKNOWN."""
    return functional.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")


def domain_loss(logits: torch.Tensor, is_source: torch.Tensor) -> torch.Tensor:
    """Cross-entropy [rows] of the discriminator's `logits` [rows], high for rows that it takes for the source's."""
    return functional.binary_cross_entropy_with_logits(logits, is_source.float(), reduction="none")


class Part(NamedTuple):
    """Examples of both domains in turn, or some of them."""

    examples: Any
    labels: torch.Tensor  # [rows] int64, UNKNOWN for the target's
    is_source: torch.Tensor  # [rows] bool


@method(
    reads=KINDS,
    paper="Ganin & Lempitsky 2015, Unsupervised domain adaptation by backpropagation; Ganin et al. 2016, "
    "Domain-adversarial training of neural networks",
    opens_with="safetensors; resnet, vit and bert: transformers (AutoModelForImageClassification, "
    "AutoModelForSequenceClassification, AutoTokenizer)",
    example=Example(
        spec={
            "method": "domain_adversarial",
            "architecture": {"architecture": "convnet", "channels": [8, 16]},
            "epochs": 6,
            "batch_size": 32,
            "learning_rate": 1e-2,
            "jitter": 1,
            "validation_fraction": 0.2,
        },
        write_dataset=write_images,
        files={"target": write_other_images},
    ),
    check=check,
)
def train(spec: DomainAdversarialSpec, run: Run) -> Mapping[str, float]:
    """Descend the loss of the source's classes and, by the discriminator alone, that of the domains.

    On its way from the discriminator to the features the gradient is turned around: they learn to say nothing of them.
    """
    source, validation = read_training_data(spec, run, images=ImageSize(spec.image_size))
    target = read_target(spec, source, run)
    examples = joined(source, target)
    classifier = new_classifier(spec, examples).on(run.device)
    both, held_out = prepare(classifier, examples, run), prepare_validation(classifier, validation, run)
    discriminator = discriminator_for(classifier, both, spec).to(run.device)
    batches = Batches.of(len(source), spec)
    targets = Batches(len(target), batch_size=spec.batch_size, seed=spec.seed + 1, steps=len(batches))
    learning = Learning(nn.ModuleList([classifier.network, discriminator]), spec, run, total=len(batches))

    def loss_of(part: Part) -> torch.Tensor:
        strength = spec.domain_weight * reversal(run.step / len(batches))
        with autocast(spec.precision, run.device):
            logits, features = classifier.logits_and_features(part.examples)
            guesses = discriminator(reversed_gradient(vectors(features), strength=strength))[:, 0]
        of_classes, of_domains = class_loss(logits.float(), part.labels), domain_loss(guesses.float(), part.is_source)
        is_right = (guesses > 0) == part.is_source
        run.log(loss=of_classes.sum() / part.is_source.sum().clamp(min=1))
        run.log(domain_loss=of_domains.mean(), domain_accuracy=is_right.float().mean())
        return of_classes.sum() + of_domains.sum() / 2

    for batch in run.steps(batches):
        learning.network.train()
        rows = in_turn(batch.rows, len(source) + targets[batch.step].rows)
        drawn = augment(both.examples[rows], spec, generator=run.generator)
        learning.descend(Part(drawn, both.labels[rows], rows < len(source)), loss_of, over=len(batch.rows))
        if batch.is_epoch_end:
            if held_out is not None:
                learning.validate(lambda: evaluate(classifier, held_out).metrics())
            if target.labels is not None:
                with learning.averaged():
                    run.report(target_accuracy=judge(classifier, both, target, rows=sample_rows(len(target))).accuracy)

    learning.finish()
    for warning in what_failed([value for _, value in run.history.series["domain_accuracy"]], spec.domain_weight):
        run.message(warning, "warn")
    learned = Prepared(both.examples, both.labels[: len(source)])
    metrics = write_results(classifier, run, training=learned, validation=held_out)
    if target.labels is not None:
        found = judge(classifier, both, target, rows=torch.arange(len(target)))
        write_confusion_matrix(found.confusion, classifier.class_names, run.artifacts / "target_confusion_matrix.png")
        metrics |= found.metrics("target_")
    return metrics


def read_target(spec: DomainAdversarialSpec, source: Labelled, run: Run) -> Labelled:
    """The examples of the other domain, as large as the source's where they are images; raises InvalidData."""
    images = ImageSize()
    if source.kind is Kind.IMAGES and isinstance(source.examples, torch.Tensor):
        _, channels, height, width = source.examples.shape
        images = ImageSize((height, width), channels)
    reading = spec.model_copy(update={"label": spec.target_label})
    target = read_labelled(run.inputs["target"], reading, images, Sound(), param="target", needs_labels=False)
    check_alike(source, target, param="target")
    if not len(target):
        raise InvalidData("the target has no examples", param="target")
    known = target.with_classes(source.class_names, param="target", needs_labels=False)
    if target.labels is not None and known.labels is None:
        run.message("The target has classes that the data set does not have: its accuracy is not measured", "warn")
    return known


def joined(source: Labelled, target: Labelled) -> Labelled:
    """The source's examples, and then the target's, whose labels are UNKNOWN."""
    assert source.labels is not None  # noqa: S101 - read_training_data has seen to it
    labels = torch.cat([source.labels, torch.full((len(target),), UNKNOWN)])
    if isinstance(source.examples, torch.Tensor) and isinstance(target.examples, torch.Tensor):
        return replace(source, examples=torch.cat([source.examples, target.examples]), labels=labels, places=None)
    return replace(source, examples=[*source.examples, *target.examples], labels=labels, places=None)


def new_classifier(spec: DomainAdversarialSpec, both: Labelled) -> Classifier:
    """The network that the spec asks for; it standardises by the examples of both domains, or has words of both."""
    architecture = spec.architecture or DEFAULTS[both.kind]
    check_kind(architecture, both.kind, param="architecture")
    names, columns = both.class_names, both.columns
    return build_classifier(architecture, both.examples, kind=both.kind, class_names=names, columns=columns)


@torch.no_grad()
def discriminator_for(classifier: Classifier, both: Prepared, spec: DomainAdversarialSpec) -> nn.Module:
    """A new discriminator of the classifier's features."""
    classifier.network.eval()
    features = vectors(classifier.logits_and_features(both.examples[torch.arange(1)])[1])
    return new_discriminator(features.shape[1], hidden_size=spec.discriminator_size)


def in_turn(sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Rows of both by turns, so that each part of a batch has both; targets are repeated where there are too few."""
    return torch.stack([sources, targets[torch.arange(len(sources)) % len(targets)]], 1).flatten()


def judge(classifier: Classifier, both: Prepared, target: Labelled, *, rows: torch.Tensor) -> Evaluation:
    """How the classifier does on these rows of the target, by its own classes, which nothing was learned from."""
    assert target.labels is not None  # noqa: S101 - asked only where they are known
    sources = len(both.labels) - len(target)
    truth = torch.cat([both.labels[:sources], target.labels])
    return evaluate(classifier, Prepared(both.examples, truth), rows=sources + rows)


def what_failed(accuracies: Sequence[float], domain_weight: float) -> Iterator[str]:
    """What the discriminator's accuracies, step after step, show to have gone wrong, and the cure."""
    end = accuracies[-max(1, len(accuracies) // 4) :]
    reached = sum(end) / len(end)
    if domain_weight == 0:
        return
    if max(accuracies) < BLIND:
        yield (
            f"The discriminator never told the domains apart (at best {max(accuracies):.0%} were right, and 50% is "
            "chance): either they are alike, and there was nothing to adapt to, or it needs a larger "
            "discriminator_size or learning_rate"
        )
    elif reached > WON:
        yield (
            f"The discriminator still tells the domains apart in {reached:.0%} of the examples: the features have not "
            "become alike. Try another domain_weight, a larger batch_size, or more epochs"
        )
