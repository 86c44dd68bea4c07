"""Boxes: how much two overlap, which prediction is matched to which truth, and how precise detections are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from core.data.boxed import NOTHING


class Detections(NamedTuple):
    """What is seen in one image: boxes [k, 4] as corners, their classes [k] and how sure each is [k]."""

    boxes: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor


def corners(boxes: torch.Tensor) -> torch.Tensor:
    """Left, top, right and bottom [..., 4] of boxes given as centre, width and height."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def overlap(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Intersection over union of all pairs of boxes [n, 4] and [m, 4], as corners, and its generalised form, [n, m].

    The latter (Rezatofighi et al. 2019) also tells how far boxes that do not touch lie apart.
    """
    first, second = first[:, None], second[None]
    sizes = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1) for boxes in (first, second)]
    inner = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    outer = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    shared, hull = inner.clamp(min=0).prod(-1), outer.prod(-1).clamp(min=1e-9)
    union = (sizes[0] + sizes[1] - shared).clamp(min=1e-9)
    found = shared / union
    return found, found - (hull - union) / hull


@torch.no_grad()
def match(costs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which predictions and truths go together, [k] and [k], so that the sum of their `costs` is least.

    `costs` [predictions, truths]; every truth gets a prediction, or every prediction a truth (Kuhn 1955).
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    predictions, truths = linear_sum_assignment(costs.nan_to_num(1e9, posinf=1e9, neginf=-1e9).cpu().numpy())
    return torch.as_tensor(predictions, device=costs.device), torch.as_tensor(truths, device=costs.device)


def average_precision(
    found: Sequence[Detections],
    boxes: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    *,
    classes: int,
    least: float = 0.5,
) -> torch.Tensor:
    """Of each class, [classes]: the area below precision over recall, NaN where there is nothing of it.

    A detection is right if it overlaps a box (corners) of its class by `least` that no surer one has taken. Precision
    counts as the best at any higher recall, as in Pascal VOC from 2010 on (Everingham et al.).
    """
    areas = torch.full((classes,), torch.nan)
    for number in range(classes):
        total = sum(int((truth == number).sum()) for truth in labels)
        if total:
            scores, is_right = _judged(found, boxes, labels, number, least)
            areas[number] = _area(is_right[scores.argsort(descending=True, stable=True)], total)
    return areas


def _judged(
    found: Sequence[Detections],
    boxes: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    number: int,
    least: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of all detections of a class, and whether each is right."""
    scores, is_right = [torch.empty(0)], [torch.empty(0, dtype=torch.bool)]
    for seen, places, truth in zip(found, boxes, labels, strict=True):
        mine = seen.scores[seen.labels == number].sort(descending=True, stable=True)
        overlaps = overlap(seen.boxes[seen.labels == number][mine.indices], places[truth == number])[0]
        right = torch.zeros(len(mine.values), dtype=torch.bool)
        for row in range(len(right) if overlaps.shape[1] else 0):
            best = int(overlaps[row].argmax())
            if overlaps[row, best] >= least:
                right[row] = True
                overlaps[:, best] = -1
        scores.append(mine.values)
        is_right.append(right)
    return torch.cat(scores), torch.cat(is_right)


def _area(is_right: torch.Tensor, total: int) -> float:
    """Below the curve of precision over recall; `is_right`: detections of one class, the surest first."""
    hits = is_right.double().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    best = precision.flip(0).cummax(0).values.flip(0) if len(hits) else precision
    return float(best[is_right].sum() / total)


def real(boxes: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One image's boxes [k, 4] and classes [k] without the places that hold none."""
    is_real = labels != NOTHING
    return boxes[is_real], labels[is_real]
