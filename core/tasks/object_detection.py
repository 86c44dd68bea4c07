"""Finding things in images: a box around each, and its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional

from core.data.boxed import NOTHING, Boxed, read_boxed
from core.data.profile import Kind
from core.errors import InvalidData
from core.networks.image_model import ImageModel, open_image_model
from core.networks.loading import read_config
from core.networks.opening import image_shape
from core.tasks.task import TaskType, TuningSpec
from core.training.artifacts import write_json
from core.training.batches import hold_out
from core.training.boxes import Detections, average_precision, corners, match, overlap, real
from core.training.classification import sample_rows
from core.training.devices import autocast
from core.training.run import Run

MATCHING = ("detr", "yolos", "table-transformer")  # the models that learn by the loss of `set_loss`
EVALUATION_ROWS = 16
SHOWN = 6
SURE = 0.5
DRAWN_SIDE = 256


class Batch(NamedTuple):
    """Images with their boxes; `totals`: how many images and boxes the whole batch has, whatever part this is."""

    images: torch.Tensor  # [n, channels, height, width] uint8
    boxes: torch.Tensor  # [n, most boxes, 4] centre, width, height in [0, 1]
    labels: torch.Tensor  # [n, most boxes]
    totals: torch.Tensor  # [n, 2]


@dataclass
class DetectionTask:
    """A pretrained network that answers an image with a set of boxes."""

    spec: TuningSpec
    run: Run
    model: ImageModel
    training: Boxed
    held_out: Boxed | None

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
        """What makes classes and boxes of features."""
        return self.model.head

    @property
    def examples(self) -> int:
        """How many images there are."""
        return len(self.training)

    def freeze(self, *, is_head_alone: bool) -> None:
        """The encoder answers anew each time: what it says of all images would not fit the memory."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Batch:
        """Images and their boxes, half of them mirrored together where the spec asks for it."""
        images, boxes = self.training.images[rows], self.training.boxes[rows]
        if self.spec.horizontal_flip:
            is_mirrored = torch.rand(len(rows), generator=generator) < 0.5
            images = torch.where(is_mirrored[:, None, None, None], images.flip(3), images)
            mirrored = torch.cat([1 - boxes[..., :1], boxes[..., 1:]], -1)
            boxes = torch.where(is_mirrored[:, None, None], mirrored, boxes)
        return _batch(images, boxes, self.training.labels[rows])

    def loss_of(self, part: Batch) -> torch.Tensor:
        """This part's share of the batch's loss."""
        return self._judged(part)[0]

    def over(self, batch: Any) -> float:
        """The parts are shares already."""
        return 1.0

    def evaluate(self) -> Mapping[str, float] | None:
        """Loss and mAP of what was held out; shows a few images with what is found in them."""
        if self.held_out is None:
            return None
        loss, found = self._look_at(self.held_out)
        self._show(self.held_out, found)
        return {"loss": loss, "map_50": _mean(self._precisions(self.held_out, found))}

    def write_results(self) -> Mapping[str, float]:
        """The model, a few images with what is found in them, and the precision of each class."""
        parts = {"train": self.training.rows(sample_rows(len(self.training)))}
        if self.held_out is not None:
            parts["valid"] = self.held_out
        metrics: dict[str, float] = {}
        for name, data in parts.items():
            loss, found = self._look_at(data)
            precisions = self._precisions(data, found)
            metrics |= {f"{name}_loss": loss, f"{name}_map_50": _mean(precisions)}
        named = zip(self.model.class_names, precisions.tolist(), strict=True)
        write_json(self.run.artifacts / "precision.json", {name: None if at != at else at for name, at in named})
        (self.run.artifacts / "detections.png").write_bytes(self._show(data, found).read_bytes())
        self.model.save(self.run.artifacts)
        return metrics

    def _judged(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss, the classes' logits [n, queries, classes + 1], and the boxes found, [n, queries, 4]."""
        with autocast(self.spec.precision, self.run.device):
            answer = self.model.answer(part.images)
        logits, boxes = answer.logits.float(), answer.pred_boxes.float()
        return set_loss(logits, boxes, part, Weights.of(self.network.config)), logits, boxes

    @torch.no_grad()
    def _look_at(self, data: Boxed) -> tuple[float, list[Detections]]:
        """The mean loss of an image, and what is found in each."""
        self.network.eval()
        total, found = 0.0, []
        for rows in torch.arange(len(data)).split(EVALUATION_ROWS):
            part = _batch(data.images[rows], data.boxes[rows], data.labels[rows])
            loss, logits, boxes = self._judged(Batch(*(tensor.to(self.run.device) for tensor in part)))
            total += float(loss) * len(rows)
            found += detections(logits.cpu(), boxes.cpu())
        return total / len(data), found

    def _precisions(self, data: Boxed, found: Sequence[Detections]) -> torch.Tensor:
        truths = [real(corners(boxes), labels) for boxes, labels in zip(data.boxes, data.labels, strict=True)]
        boxes, labels = zip(*truths, strict=True)
        return average_precision(found, boxes, labels, classes=len(self.model.class_names))

    def _show(self, data: Boxed, found: Sequence[Detections]) -> Path:
        pictures = [drawn(image, seen, self.model.class_names) for image, seen in zip(data.images, found, strict=True)]
        return self.run.show("detections", torch.stack(pictures[:SHOWN]), caption=f"at least {SURE:.0%} sure")


class Weights(NamedTuple):
    """How much each part counts, in the costs of matching (class, box, giou) and in the loss."""

    class_cost: float = 1.0
    bbox_cost: float = 5.0
    giou_cost: float = 2.0
    bbox_loss_coefficient: float = 5.0
    giou_loss_coefficient: float = 2.0
    eos_coefficient: float = 0.1  # of the class "nothing"

    @classmethod
    def of(cls, config: Any) -> Weights:
        """Those of a transformers configuration."""
        return cls(*(float(getattr(config, name)) for name in cls._fields))


def set_loss(logits: torch.Tensor, boxes: torch.Tensor, truth: Batch, weights: Weights) -> torch.Tensor:
    """The loss of sets of boxes (Carion et al. 2020): each true box is matched to the prediction that fits it best.

    `logits` [n, queries, classes + 1], the last for nothing; `boxes` [n, queries, 4]. Cross-entropy of the classes, a
    weighted mean over all queries of the batch, plus absolute difference and generalised IoU, a mean over its boxes.
    """
    nothing = logits.shape[2] - 1
    total = logits.new_zeros(())
    for scores, places, real_boxes, labels in zip(logits, boxes, truth.boxes, truth.labels, strict=True):
        wanted, classes = real(real_boxes, labels)
        queries, truths = match(_costs(scores, places, wanted, classes, weights))
        named = torch.full((len(scores),), nothing, device=logits.device)
        named[queries] = classes[truths]
        importance = torch.where(named == nothing, weights.eos_coefficient, 1.0)
        entropy = (functional.cross_entropy(scores, named, reduction="none") * importance).sum()
        apart = (places[queries] - wanted[truths]).abs().sum()
        generalised = overlap(corners(places[queries]), corners(wanted[truths]))[1].diagonal()
        images, count = truth.totals[0].float()
        everything = count + weights.eos_coefficient * (images * len(scores) - count)
        far = weights.bbox_loss_coefficient * apart + weights.giou_loss_coefficient * (1 - generalised).sum()
        total = total + entropy / everything + far / count.clamp(min=1)
    return total


@torch.no_grad()
def _costs(
    scores: torch.Tensor, places: torch.Tensor, wanted: torch.Tensor, classes: torch.Tensor, weights: Weights
) -> torch.Tensor:
    """What it costs to give each prediction to each true box, [queries, boxes]."""
    unlike = -scores.softmax(-1)[:, classes]
    apart = torch.cdist(places, wanted, p=1)
    away = -overlap(corners(places), corners(wanted))[1]
    return weights.class_cost * unlike + weights.bbox_cost * apart + weights.giou_cost * away


def detections(logits: torch.Tensor, boxes: torch.Tensor) -> list[Detections]:
    """What each image is said to hold: of every query its likeliest class, "nothing" left aside."""
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    return [Detections(*each) for each in zip(corners(boxes), labels, scores, strict=True)]


def drawn(image: torch.Tensor, found: Detections, class_names: Sequence[str]) -> torch.Tensor:
    """The image [channels, height, width] uint8, enlarged, with a frame and a name where it is sure: [3, h, w]."""
    height, width = image.shape[1:]
    factor = max(1, DRAWN_SIDE // max(height, width))
    pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    scale = torch.tensor([width, height, width, height]) * factor
    for box, label, score in zip(*found, strict=True):
        if score >= SURE:
            left, top, right, bottom = (box.clamp(0, 1) * scale).tolist()
            pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=(255, 0, 0), width=2)
            name = class_names[int(label)][:20].encode("latin-1", "replace").decode("latin-1")
            pen.text((left + 3, top + 1), f"{name} {score:.0%}", fill=(255, 0, 0))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def _batch(images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> Batch:
    totals = torch.tensor([[len(images), int((labels != NOTHING).sum())]]).expand(len(images), -1)
    return Batch(images, boxes, labels, totals)


def _mean(precisions: torch.Tensor) -> float:
    known = precisions[~precisions.isnan()]
    return float(known.mean()) if len(known) else 0.0


def open_task(spec: TuningSpec, run: Run) -> DetectionTask:
    """The base with a head for the classes of the boxes."""
    folder = run.inputs["base"]
    kind = read_config(folder).get("model_type")
    if kind not in MATCHING:
        raise InvalidData(f"a model of type '{kind}' is no base here: name one of {', '.join(MATCHING)}", param="base")
    channels, *size = image_shape(folder, param="base")
    height, width = (spec.image_size, spec.image_size) if spec.image_size else size
    data = read_boxed(run.dataset, size=(height, width), channels=channels)

    def read_validation() -> Boxed:
        read = read_boxed(run.inputs["validation"], size=(height, width), channels=channels)
        return _of_classes(read, data.class_names)

    training, held_out = hold_out(data, spec, read_validation=read_validation)
    model = open_image_model(
        folder,
        "AutoModelForObjectDetection",
        class_names=training.class_names,
        shape=(channels, height, width),
        reinitialize=spec.reinitialize,
    )
    return DetectionTask(spec, run, model, training, held_out)


def _of_classes(data: Boxed, class_names: tuple[str, ...]) -> Boxed:
    """The same with labels that are places in `class_names`; raises InvalidData for others."""
    numbers = {name: number for number, name in enumerate(class_names)}
    unknown = [name for name in data.class_names if name not in numbers]
    if unknown:
        raise InvalidData(f"class {unknown[0]!r} is not among those that are learned", param="validation")
    places = torch.tensor([*(numbers[name] for name in data.class_names), NOTHING])
    return replace(data, labels=places[data.labels], class_names=class_names)


TASK = TaskType(reads=(Kind.BOXED,), open=open_task)
