"""Examples with their classes: read, checked, split and cut into parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import Field

from core.data.images import read_images
from core.data.profile import Kind, Profile
from core.data.sources import PictureSource, PixelSource, TableSource, TextSource, open_source
from core.data.tables import read_table
from core.data.text import read_documents, read_labelled_text
from core.errors import InvalidData, InvalidSpec
from core.spec import TrainingSpec
from core.training.batches import split
from core.training.run import Run

Batch = torch.Tensor | Mapping[str, torch.Tensor]  # of texts: what their tokenizer gives
AnyBatch = TypeVar("AnyBatch", torch.Tensor, Mapping[str, torch.Tensor], Batch)
KINDS = (Kind.TABLE, Kind.IMAGES, Kind.TEXT)


class LabelledSpec(TrainingSpec):
    """What every method that trains a classifier may ask for."""

    text: str | None = Field(
        None, min_length=1, max_length=200, description="Column of the texts; none: found by name."
    )
    label: str | None = Field(
        None, min_length=1, max_length=200, description="Column of the classes; none: found by name."
    )
    jitter: int = Field(0, ge=0, le=64, description="Pixels by which training images are shifted at most, at random.")
    horizontal_flip: bool = Field(False, description="Mirror half of the training images, chosen anew in each epoch.")


@dataclass(frozen=True)
class Labelled:
    """Examples in memory and the class of each, if known."""

    kind: Kind
    examples: torch.Tensor | Sequence[str]  # float32 [n, columns], uint8 [n, channels, height, width], or texts
    labels: torch.Tensor | None  # [n] int64, an index into class_names
    class_names: tuple[str, ...]
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def rows(self, rows: torch.Tensor) -> Labelled:
        """Only these rows."""
        examples = self.examples
        chosen = examples[rows] if isinstance(examples, torch.Tensor) else [examples[row] for row in rows.tolist()]
        return replace(self, examples=chosen, labels=None if self.labels is None else self.labels[rows])

    def with_classes(self, names: Sequence[str], *, param: str, needs_labels: bool = True) -> Labelled:
        """The same with labels that are indices into `names`.

        Where a class is not among these it raises InvalidData, or forgets the labels if they are not needed.
        """
        numbers = {name: number for number, name in enumerate(names)}
        unknown = [name for name in self.class_names if name not in numbers]
        if unknown and needs_labels:
            raise InvalidData(
                f"class {unknown[0]!r} is not among those that are learned: {', '.join(map(repr, names[:20]))}",
                param=param,
            )
        if self.labels is None or unknown:
            return replace(self, labels=None, class_names=tuple(names))
        order = torch.tensor([numbers[name] for name in self.class_names])
        return replace(self, labels=order[self.labels], class_names=tuple(names))


@dataclass(frozen=True)
class ImageSize:
    """How images are read: pixels a side (or height and width) and channels, None where the data decides."""

    size: int | tuple[int, int] | None = None
    channels: int | None = None


def read_training_data(
    spec: LabelledSpec,
    run: Run,
    *,
    images: ImageSize | None = None,
    class_names: Sequence[str] | None = None,
    needs_labels: bool = True,
) -> tuple[Labelled, Labelled | None]:
    """What to learn from and what to validate on, a file or a fraction.

    `class_names`: the classes that labels must be of; none: those of the data set.
    """
    images = images or ImageSize()
    training = read_labelled(run.dataset, spec, images, param="dataset", needs_labels=needs_labels)
    if class_names is not None:
        training = training.with_classes(class_names, param="dataset", needs_labels=needs_labels)
    if needs_labels:
        _check_classes(training)
    if spec.validation_fraction is not None:
        if len(training) < 2:
            raise InvalidData("one example cannot be split for validation", param="dataset")
        rows, held_out = split(len(training), fraction=spec.validation_fraction, seed=spec.seed)
        return training.rows(rows), training.rows(held_out)
    if spec.validation is None:
        return training, None
    if training.kind is Kind.IMAGES and isinstance(training.examples, torch.Tensor):
        _, channels, height, width = training.examples.shape
        images = ImageSize((height, width) if images.size is not None else None, channels)
    validation = read_labelled(run.inputs["validation"], spec, images, param="validation", needs_labels=needs_labels)
    _check_alike(training, validation)
    return training, validation.with_classes(training.class_names, param="validation", needs_labels=needs_labels)


def read_labelled(path: Path, spec: LabelledSpec, images: ImageSize, *, param: str, needs_labels: bool) -> Labelled:
    """The data set at `path`, whatever its kind; raises InvalidData where labels are needed and there are none."""
    source = open_source(path, text=spec.text, label=spec.label)
    match source:
        case TableSource():
            table = read_table(path, label=spec.label)
            found = Labelled(Kind.TABLE, table.features, table.labels, table.class_names, table.columns)
        case PictureSource() | PixelSource():
            read = read_images(path, size=images.size, channels=images.channels)
            found = Labelled(Kind.IMAGES, read.pixels, read.labels, read.class_names)
        case TextSource() if source.label is None and not needs_labels:
            found = Labelled(Kind.TEXT, tuple(read_documents(path)), None, ())
        case TextSource():
            texts = read_labelled_text(path, text=spec.text, label=spec.label)
            found = Labelled(Kind.TEXT, texts.texts, texts.labels, texts.class_names)
        case _:
            raise InvalidData("a classifier learns from tables, images or texts", param=param)
    if needs_labels and found.labels is None:
        raise InvalidData(unlabelled(found.kind), param=param)
    return found


def unlabelled(kind: Kind) -> str:
    """What to do about a data set of this kind that has no labels."""
    cure = {
        Kind.TABLE: "add a column called label, or name yours in the setting label",
        Kind.IMAGES: "put the images into a folder for each class, or send an .npz with x and y",
        Kind.TEXT: "send JSON Lines or CSV with text and label, or name your columns in the settings text and label",
    }
    return f"the examples have no classes to learn: {cure[kind]}"


def _check_classes(data: Labelled) -> None:
    if len(data.class_names) < 2:
        raise InvalidData(one_class(data.class_names[0], len(data)), param="dataset")


def one_class(name: str, examples: int) -> str:
    """What to say of a data set with a single class."""
    return f"all {examples:,} examples are of class {name!r}; a classifier needs two or more"


def _check_alike(training: Labelled, validation: Labelled) -> None:
    if training.kind is not validation.kind:
        raise InvalidData(
            f"the data set holds {training.kind.value}, the validation file {validation.kind.value}", param="validation"
        )
    if isinstance(training.examples, torch.Tensor) and isinstance(validation.examples, torch.Tensor):
        wanted, given = list(training.examples.shape[1:]), list(validation.examples.shape[1:])
        if wanted != given:
            raise InvalidData(
                f"validation examples have the shape {given}, those of the data set {wanted}: they must be alike",
                param="validation",
            )
    if training.columns != validation.columns:
        raise InvalidData(
            f"the columns are {_listed(validation.columns)}, those of the data set {_listed(training.columns)}",
            param="validation",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (" ..." if len(names) > 8 else "")


def check_labelled(spec: LabelledSpec, profile: Profile, *, needs_labels: bool = True) -> None:
    """Refuse what a profile alone shows to be impossible for a classifier."""
    if profile.kind is not Kind.IMAGES:
        for name, is_set in {"jitter": spec.jitter, "horizontal_flip": spec.horizontal_flip}.items():
            if is_set:
                raise InvalidSpec(f"{name} is for images, and the data set holds {profile.kind.value}", param=name)
    if profile.kind is not Kind.TEXT and spec.text is not None:
        raise InvalidSpec(f"text is for texts, and the data set holds {profile.kind.value}", param="text")
    if profile.kind is Kind.IMAGES and spec.label is not None:
        raise InvalidSpec("label names a column, and the classes of images are their folders", param="label")
    if profile.examples == 0:
        raise InvalidData("the data set is empty", param="dataset")
    if spec.validation_fraction is not None and profile.examples < 2:
        raise InvalidData("one example cannot be split for validation", param="dataset")
    if needs_labels and spec.label is None:
        _check_profile_classes(profile)


def _check_profile_classes(profile: Profile) -> None:
    if not profile.classes:
        raise InvalidData(unlabelled(profile.kind), param="dataset")
    if len(profile.classes) == 1:
        raise InvalidData(one_class(next(iter(profile.classes)), profile.examples), param="dataset")
