"""What frozen features are worth: a ridge classifier on a sample of them, and which images lie near each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

FIT, JUDGED = 2000, 1000  # images that the classifier is fitted to and judged on, at most
ROWS_AT_ONCE = 250
RIDGE = 1e-2  # of the features' variance

Encode = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Images:
    """Pixels [n, channels, height, width] in bytes and, if known, the class [n] of each."""

    pixels: torch.Tensor
    labels: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, rows: torch.Tensor) -> Images:
        """Only these rows."""
        return Images(self.pixels[rows], None if self.labels is None else self.labels[rows])


@dataclass(frozen=True)
class Probe:
    """A sample of images to fit a linear classifier to, and others to judge it and to show."""

    fit: Images
    judged: Images

    @classmethod
    def of(cls, training: Images, held_out: Images | None) -> Probe:
        """Judges on what is held out; where nothing is, on training images other than those it is fitted to."""
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
        if held_out is not None:
            others = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))
            return cls(training.rows(order[:FIT]), held_out.rows(others[:JUDGED]))
        judged = min(JUDGED, len(order) // 3)
        return cls(training.rows(order[judged:][:FIT]), training.rows(order[:judged]))

    @property
    def has_classes(self) -> bool:
        """Whether there is anything to tell apart, on both sides."""
        fit, judged = self.fit.labels, self.judged.labels
        return fit is not None and judged is not None and len(judged) > 0 and len(fit.unique()) > 1

    def accuracy(self, encode: Encode) -> float:
        """Fraction of the judged images whose class a ridge regression on the fitted ones names."""
        assert self.fit.labels is not None and self.judged.labels is not None  # noqa: S101, PT018 - has_classes
        fit, judged = features_of(self.fit.pixels, encode), features_of(self.judged.pixels, encode)
        return ridge_accuracy(fit, self.fit.labels, judged, self.judged.labels)


@torch.no_grad()
def features_of(pixels: torch.Tensor, encode: Encode) -> torch.Tensor:
    """Features [n, width] of all images, in float64 on the CPU."""
    return torch.cat([encode(block).double().cpu() for block in pixels.split(ROWS_AT_ONCE)])


def ridge_accuracy(
    features: torch.Tensor, labels: torch.Tensor, judged: torch.Tensor, judged_labels: torch.Tensor
) -> float:
    """Accuracy on `judged` of the ridge regression from standardised features [n, width] to indicators of classes."""
    std, mean = torch.std_mean(features, 0, correction=0)
    std = torch.where(std > 1e-6 * std.max(), std, torch.inf)  # what does not vary tells nothing
    x, y = (features - mean) / std, functional.one_hot(labels).double()
    penalty = RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - y.mean(0)))
    scores = (judged - mean) / std @ weights + y.mean(0)
    return float((scores.argmax(1) == judged_labels).double().mean())


def neighbours(pixels: torch.Tensor, encode: Encode, *, queries: int, nearest: int) -> torch.Tensor:
    """The first `queries` images in a row, and below each those whose features have the smallest angle to its own.

    Answers [(1 + nearest) * queries, channels, height, width] in [0, 1], row by row.
    """
    features = features_of(pixels, encode)
    features = functional.normalize(features - features.mean(0))
    similarity = features[:queries] @ features.T
    similarity[:, :queries].fill_diagonal_(-torch.inf)
    rows = similarity.topk(min(nearest, len(pixels) - 1)).indices.T.flatten()
    return torch.cat([pixels[:queries], pixels[rows]]).float() / 255
