"""Examples with their classes: read, checked, split and cut into parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import Field

from core.data.images import read_images
from core.data.opening import open_source
from core.data.profile import Kind, Profile
from core.data.recordings import Hearing, read_frames, read_waves
from core.data.sources import AudioSource, FrameSource, PictureSource, PixelSource, TableSource, TextSource
from core.data.tables import read_table
from core.data.text import read_documents, read_labelled_text
from core.errors import InvalidData, InvalidSpec
from core.spec import TrainingSpec
from core.training.batches import split
from core.training.leakage import count_shared
from core.training.run import Run

Batch = torch.Tensor | Mapping[str, torch.Tensor]  # of texts: what their tokenizer gives
AnyBatch = TypeVar("AnyBatch", torch.Tensor, Mapping[str, torch.Tensor], Batch)
KINDS = (Kind.TABLE, Kind.IMAGES, Kind.TEXT)
MAX_SECONDS = 10.0


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

    max_seconds: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Seconds of a recording that are heard; none: 10. Of speech: longer ones are left out; none: 30.",
    )


@dataclass(frozen=True)
class Labelled:
    """Examples in memory and the class of each, if known."""

    kind: Kind
    # float32 [n, columns] or [n, features, frames], uint8 [n, channels, height, width], texts, or waves
    examples: torch.Tensor | Sequence[Any]
    labels: torch.Tensor | None  # [n] int64, an index into class_names
    class_names: tuple[str, ...]
    columns: tuple[str, ...] = ()
    hearing: Hearing | None = None  # how waves became frames
    cut: int = 0  # recordings that are longer than what is heard
    places: torch.Tensor | None = None  # [n] int64, where each stood in the data set; None: in this order

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def numbers(self) -> torch.Tensor:
        """[n] int64: the place of each example in the data set as it was sent, from 0."""
        return torch.arange(len(self)) if self.places is None else self.places

    def rows(self, rows: torch.Tensor) -> Labelled:
        """Only these rows."""
        examples = self.examples
        chosen = examples[rows] if isinstance(examples, torch.Tensor) else [examples[row] for row in rows.tolist()]
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, examples=chosen, labels=labels, places=self.numbers[rows])

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


@dataclass(frozen=True)
class Sound:
    """How recordings are read: as waves at `rate`, or, where it is None, as `frames`, None where the data decides."""

    rate: int | None = None
    hearing: Hearing = field(default_factory=Hearing)
    frames: int | None = None


def read_training_data(
    spec: LabelledSpec,
    run: Run,
    *,
    images: ImageSize | None = None,
    sound: Sound | None = None,
    class_names: Sequence[str] | None = None,
    needs_labels: bool = True,
) -> tuple[Labelled, Labelled | None]:
    """What to learn from and what to validate on, a file or a fraction.

    `class_names`: the classes that labels must be of; none: those of the data set.
    """
    images, sound = images or ImageSize(), sound or Sound()
    training = read_labelled(run.dataset, spec, images, sound, param="dataset", needs_labels=needs_labels)
    if training.cut:
        run.message(f"{training.cut:,} of {len(training):,} recordings are longer than what is heard of them", "warn")
    if class_names is not None:
        training = training.with_classes(class_names, param="dataset", needs_labels=needs_labels)
    if needs_labels:
        _check_classes(training)
    if spec.validation_fraction is not None:
        if len(training) < 2:
            raise InvalidData("one example cannot be split for validation", param="dataset")
        rows, held_out = split(len(training), fraction=spec.validation_fraction, seed=spec.seed)
        return warned(training.rows(rows), training.rows(held_out), run)
    if spec.validation is None:
        return training, None
    if training.kind is Kind.IMAGES and isinstance(training.examples, torch.Tensor):
        _, channels, height, width = training.examples.shape
        images = ImageSize((height, width) if images.size is not None else None, channels)
    if training.kind is Kind.AUDIO and isinstance(training.examples, torch.Tensor):
        sound = replace(sound, frames=training.examples.shape[2])
    validation = read_labelled(
        run.inputs["validation"], spec, images, sound, param="validation", needs_labels=needs_labels
    )
    check_alike(training, validation, param="validation")
    validation = validation.with_classes(training.class_names, param="validation", needs_labels=needs_labels)
    return warned(training, validation, run)


def warned(training: Labelled, validation: Labelled, run: Run) -> tuple[Labelled, Labelled]:
    """The same two, after a word about what makes a validation say little, if there is something to be said."""
    for warning in warnings_about(training, validation):
        run.message(warning, "warn")
    return training, validation


def read_labelled(
    path: Path, spec: LabelledSpec, images: ImageSize, sound: Sound, *, param: str, needs_labels: bool
) -> Labelled:
    """The data set at `path`, whatever its kind; raises InvalidData where labels are needed and there are none."""
    source = open_source(path, text=spec.text, label=spec.label)
    match source:
        case TableSource():
            table = read_table(path, label=spec.label)
            found = Labelled(Kind.TABLE, table.features, table.labels, table.class_names, table.columns)
        case PictureSource() | PixelSource():
            read = read_images(path, size=images.size, channels=images.channels)
            found = Labelled(Kind.IMAGES, read.pixels, read.labels, read.class_names)
        case AudioSource() | FrameSource():
            found = _read_sound(path, sound, max_seconds=spec.max_seconds or MAX_SECONDS)
        case TextSource() if source.label is None and not needs_labels:
            found = Labelled(Kind.TEXT, tuple(read_documents(path)), None, ())
        case TextSource():
            texts = read_labelled_text(path, text=spec.text, label=spec.label)
            found = Labelled(Kind.TEXT, texts.texts, texts.labels, texts.class_names)
        case _:
            raise InvalidData("a classifier learns from tables, images, recordings or texts", param=param)
    if needs_labels and found.labels is None:
        raise InvalidData(unlabelled(found.kind), param=param)
    return found


def _read_sound(path: Path, sound: Sound, *, max_seconds: float) -> Labelled:
    if sound.rate is not None:
        waves = read_waves(path, rate=sound.rate, max_seconds=max_seconds)
        return Labelled(Kind.AUDIO, waves.waves, waves.labels, waves.class_names, cut=waves.cut)
    read = read_frames(path, hearing=sound.hearing, max_seconds=max_seconds, frames=sound.frames)
    return Labelled(Kind.AUDIO, read.frames, read.labels, read.class_names, hearing=read.hearing, cut=read.cut)


def unlabelled(kind: Kind) -> str:
    """What to do about a data set of this kind that has no labels."""
    cure = {
        Kind.TABLE: "add a column called label, or name yours in the setting label",
        Kind.IMAGES: "put the images into a folder for each class, or send an .npz with x and y",
        Kind.AUDIO: "put the recordings into a folder for each class, or send an .npz with x, lengths and y",
        Kind.TEXT: "send JSON Lines or CSV with text and label, or name your columns in the settings text and label",
    }
    return f"the examples have no classes to learn: {cure[kind]}"


def _check_classes(data: Labelled) -> None:
    if len(data.class_names) < 2:
        raise InvalidData(one_class(data.class_names[0], len(data)), param="dataset")


def one_class(name: str, examples: int) -> str:
    """What to say of a data set with a single class."""
    return f"all {examples:,} examples are of class {name!r}; a classifier needs two or more"


def warnings_about(training: Labelled, validation: Labelled) -> Iterator[str]:
    """What makes a validation on these examples say less than it seems to."""
    shared = count_shared(training.examples, validation.examples)
    if shared:
        yield (
            f"{shared:,} of {len(validation):,} validation examples are in the training data too, exactly as they are: "
            "what is measured on them is memory. Remove duplicates from the data set, or send another validation file."
        )
    if training.labels is None or validation.labels is None:
        return
    for labels, where in ((validation.labels, "validation"), (training.labels, "training")):
        present = set(labels.unique().tolist())
        missing = [name for number, name in enumerate(training.class_names) if number not in present]
        if missing:
            yield (
                f"{len(missing)} of {len(training.class_names)} classes have no {where} example: {_listed(missing)}. "
                "Send more examples of them, or a validation file with all classes."
            )


def check_alike(training: Labelled, other: Labelled, *, param: str) -> None:
    """Raise InvalidData, of field `param`, where the examples of the two are not of one kind and form."""
    if training.kind is not other.kind:
        raise InvalidData(f"the data set holds {training.kind.value}, the {param} file {other.kind.value}", param=param)
    if isinstance(training.examples, torch.Tensor) and isinstance(other.examples, torch.Tensor):
        wanted, given = list(training.examples.shape[1:]), list(other.examples.shape[1:])
        if wanted != given:
            raise InvalidData(
                f"{param} examples have the shape {given}, those of the data set {wanted}: they must be alike",
                param=param,
            )
    if training.columns != other.columns:
        raise InvalidData(
            f"the columns are {_listed(other.columns)}, those of the data set {_listed(training.columns)}",
            param=param,
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
    if profile.kind in (Kind.IMAGES, Kind.AUDIO) and spec.label is not None:
        raise InvalidSpec(f"label names a column, and the classes of {profile.kind} are their folders", param="label")
    if profile.kind is not Kind.AUDIO and spec.max_seconds is not None:
        raise InvalidSpec(f"max_seconds is for recordings, and the data set holds {profile.kind}", param="max_seconds")
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
