"""Naming the class of every pixel of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from core.data.profile import Kind, Profile
from core.data.segmented import IGNORED, Segmented, read_segmented
from core.errors import InvalidData
from core.networks.image_model import ImageModel, open_image_model
from core.networks.opening import image_shape
from core.tasks.task import TaskType, TuningSpec, check_split
from core.training.artifacts import write_json
from core.training.augmentation import augment
from core.training.batches import hold_out
from core.training.classification import sample_rows
from core.training.devices import autocast
from core.training.run import Run

EVALUATION_ROWS = 8
SHOWN = 6


class Judged(NamedTuple):
    """How a model did: the mean loss of a pixel, and how often each true class (rows) was called what."""

    loss: float
    confusion: torch.Tensor  # [classes, classes] int64

    def metrics(self) -> dict[str, float]:
        """Loss, mean IoU and the fraction of pixels that are right."""
        right = self.confusion.diagonal().sum() / self.confusion.sum().clamp(min=1)
        overlaps = intersection_over_union(self.confusion)
        mean = overlaps[~overlaps.isnan()].mean()
        return {"loss": self.loss, "mean_iou": float(mean), "pixel_accuracy": float(right)}


@dataclass
class SegmentationTask:
    """A pretrained network with a head that names the class of each pixel."""

    spec: TuningSpec
    run: Run
    model: ImageModel
    training: Segmented
    held_out: Segmented | None

    @property
    def network(self) -> nn.Module:
        """The whole model."""
        return self.model.network

    @network.setter
    def network(self, network: nn.Module) -> None:
        self.model = replace(self.model, network=network)

    @property
    def new_parameters(self) -> frozenset[str]:
        """Those that the base lacked."""
        return self.model.new_parameters

    @property
    def head(self) -> tuple[str, ...]:
        """What makes classes of features."""
        return self.model.head

    @property
    def examples(self) -> int:
        """How many images there are."""
        return len(self.training)

    def freeze(self, *, is_head_alone: bool) -> None:
        """The maps of a frozen encoder are too large to be remembered."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Any:
        """Images and their masks, moved and mirrored together."""
        images, masks = self.training.images[rows], self.training.masks[rows]
        both: Any = augment(torch.cat([images, masks[:, None]], 1), self.spec, generator=generator)
        return both[:, :-1], both[:, -1]

    def loss_of(self, part: Any) -> torch.Tensor:
        """Cross-entropy of every pixel that has a class, summed."""
        images, masks = part
        return self._losses(images, masks)[0]

    def over(self, batch: Any) -> float:
        """Every pixel that has a class has a loss."""
        return max(1.0, float((batch[1] != IGNORED).sum()))

    def evaluate(self) -> Mapping[str, float] | None:
        """Loss, mean IoU and accuracy of what was held out; shows a few images with their masks."""
        if self.held_out is None:
            return None
        self.run.show("masks", self._pictures(self.held_out), caption="image, truth, prediction")
        return self._judge(self.held_out).metrics()

    def write_results(self) -> Mapping[str, float]:
        """The model, a few masks as PNG, and the IoU of each class."""
        sample = sample_rows(len(self.training))
        judged = {"train": self._judge(self.training.rows(sample))}
        if self.held_out is not None:
            judged["valid"] = self._judge(self.held_out)
        last = list(judged.values())[-1]
        overlaps = intersection_over_union(last.confusion).tolist()
        named = zip(self.model.class_names, overlaps, strict=True)
        write_json(self.run.artifacts / "iou.json", {name: None if iou != iou else iou for name, iou in named})
        shown = self.run.show(
            "masks", self._pictures(self.held_out or self.training), caption="image, truth, prediction"
        )
        (self.run.artifacts / "masks.png").write_bytes(Path(shown).read_bytes())
        self.model.save(self.run.artifacts)
        return {f"{part}_{name}": value for part, found in judged.items() for name, value in found.metrics().items()}

    def _losses(self, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The summed loss, 0-d, and the class that each pixel is given, [rows, height, width]."""
        with autocast(self.spec.precision, self.run.device):
            logits = self.model.answer(images).logits
        logits = functional.interpolate(logits.float(), size=masks.shape[1:], mode="bilinear", align_corners=False)
        return pixel_loss(logits, masks), logits.argmax(1)

    @torch.no_grad()
    def _judge(self, data: Segmented) -> Judged:
        self.network.eval()
        classes = len(self.model.class_names)
        confusion, total = torch.zeros(classes, classes, dtype=torch.int64), 0.0
        for rows in torch.arange(len(data)).split(EVALUATION_ROWS):
            masks = data.masks[rows]
            loss, named = self._losses(data.images[rows].to(self.run.device), masks.to(self.run.device))
            total += float(loss)
            confusion += confused(masks.long(), named.cpu(), classes)
        return Judged(total / max(1, int(confusion.sum())), confusion)

    @torch.no_grad()
    def _pictures(self, data: Segmented) -> torch.Tensor:
        """Of the first images: the image, its mask, and the mask that is found, one below the other."""
        self.network.eval()
        images, masks = data.images[:SHOWN], data.masks[:SHOWN]
        named = self._losses(images.to(self.run.device), masks.to(self.run.device))[1].cpu()
        pixels = images.float() / 255
        pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
        return torch.cat([pixels, overlaid(pixels, masks), overlaid(pixels, named)], 2)


def pixel_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, summed over pixels that have a class: `logits` [n, classes, h, w], `masks` [n, h, w]."""
    return functional.cross_entropy(logits, masks.long(), ignore_index=IGNORED, reduction="sum")


def confused(truth: torch.Tensor, named: torch.Tensor, classes: int) -> torch.Tensor:
    """How many pixels of each true class (rows) were given each class, [classes, classes] int64."""
    has_class = truth != IGNORED
    pairs = truth[has_class] * classes + named[has_class]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def intersection_over_union(confusion: torch.Tensor) -> torch.Tensor:
    """Of each class, [classes]: pixels rightly so named / pixels of it or named so; NaN where there are none."""
    right = confusion.diagonal().double()
    return right / (confusion.sum(0) + confusion.sum(1) - right)


def overlaid(pixels: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Images [n, 3, h, w] in [0, 1], half covered by the colours of their masks [n, h, w]; class 0 stays as it is."""
    colours = torch.tensor([_colour(number) for number in range(256)])[masks.long()].movedim(-1, 1)
    is_covered = ((masks != 0) & (masks != IGNORED))[:, None]
    return torch.where(is_covered, 0.4 * pixels + 0.6 * colours, pixels)


def _colour(number: int) -> list[float]:
    """Colours of Pascal VOC: the bits of the number, spread over red, green and blue from the highest down."""
    return [sum(((number >> (3 * bit + part)) & 1) << (7 - bit) for bit in range(3)) / 255 for part in range(3)]


def open_task(spec: TuningSpec, run: Run) -> SegmentationTask:
    """The base with a head for the classes of the masks."""
    channels, *size = image_shape(run.inputs["base"], param="base")
    height, width = (spec.image_size, spec.image_size) if spec.image_size else size
    data = read_segmented(run.dataset, size=(height, width), channels=channels)

    def read_validation() -> Segmented:
        read = read_segmented(run.inputs["validation"], size=(height, width), channels=channels)
        return _of_classes(read, data.class_names)

    training, held_out = hold_out(data, spec, read_validation=read_validation)
    model = open_image_model(
        run.inputs["base"],
        "AutoModelForSemanticSegmentation",
        class_names=training.class_names,
        shape=(channels, height, width),
        reinitialize=spec.reinitialize,
    )
    return SegmentationTask(spec, run, model, training, held_out)


def _of_classes(data: Segmented, class_names: tuple[str, ...]) -> Segmented:
    """The same with masks whose numbers are places in `class_names`; raises InvalidData for others."""
    numbers = {name: number for number, name in enumerate(class_names)}
    unknown = [name for name in data.class_names if name not in numbers]
    if unknown:
        raise InvalidData(f"class {unknown[0]!r} is not among those that are learned", param="validation")
    places = torch.full((256,), IGNORED, dtype=torch.uint8)
    places[: len(data.class_names)] = torch.tensor([numbers[name] for name in data.class_names], dtype=torch.uint8)
    return Segmented(data.images, places[data.masks.long()], class_names)


def check(spec: TuningSpec, profile: Profile) -> None:
    """Refuse masks of a single class, and what cannot be split."""
    if profile.classes is not None and len(profile.classes) < 2:
        raise InvalidData("all masks are of one class; segmentation needs two or more", param="dataset")
    check_split(spec, profile)


TASK = TaskType(reads=(Kind.SEGMENTED,), open=open_task, check=check)
