"""Notices what usually ruins adversarial training: a dead generator, a collapsed one, lost weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from core.training.watch import LOST, Watch

MEMORY = 0.8  # of the running means, a log
LEAST_LOGS = 10  # before a generator is believed dead
DEAD_LOSS = 0.02  # of a discriminator that is fooled by nothing any more
DEAD_GRADIENT = 0.02  # of the largest that the generator has had
COLLAPSED = 0.4  # diversity, of the data's


class AdversarialWatch(Watch):
    """Looks at `discriminator_loss`, `generator_gradient` and `sample_diversity`.

    `total`: the run's steps; in the first third of them samples may still be alike.
    """

    def __init__(self, *, total: int) -> None:
        super().__init__()
        self.total = total
        self._loss = self._gradient = math.nan
        self._largest = 0.0
        self._seen = 0

    def warnings(self, step: int, values: Mapping[str, float]) -> Iterator[str]:
        """What is to be said after these numbers; each thing once in a run."""
        for name, value in values.items():
            if not math.isfinite(value):
                yield from self._once("finite", LOST.format(name=name, value=value, step=step))
                return
        if "discriminator_loss" in values and "generator_gradient" in values:
            yield from self._dead(step, values["discriminator_loss"], values["generator_gradient"])
        diversity = values.get("sample_diversity")
        if diversity is not None and diversity < COLLAPSED and step > self.total / 3:
            yield from self._once(
                "collapse",
                f"The samples at step {step} are only {diversity:.2f} as far from each other as the training images: "
                "the generator has collapsed onto few of them. Take variant relativistic, raise gradient_penalty, or "
                "lower learning_rate.",
            )

    def _dead(self, step: int, loss: float, gradient: float) -> Iterator[str]:
        self._seen += 1
        if self._seen == 1:
            self._loss, self._gradient = loss, gradient
        self._loss = MEMORY * self._loss + (1 - MEMORY) * loss
        self._gradient = MEMORY * self._gradient + (1 - MEMORY) * gradient
        self._largest = max(self._largest, self._gradient)
        is_weak = self._gradient < DEAD_GRADIENT * self._largest
        if self._seen >= LEAST_LOGS and abs(self._loss) < DEAD_LOSS and is_weak:
            yield from self._once(
                "dead",
                f"The discriminator's loss is {self._loss:.2g} at step {step} and the generator's gradient "
                f"{self._gradient:.2g}, from {self._largest:.2g}: nothing fools the discriminator any more, and the "
                "generator learns nothing. Take variant relativistic, raise gradient_penalty, or lower learning_rate.",
            )


def diversity(samples: torch.Tensor, examples: torch.Tensor, *, classes: torch.Tensor | None = None) -> float:
    """How far samples [n, ...] lie from the nearest other one, as a fraction of the same among examples [n, ...].

    Few images over and over give nearly 0 (Arora & Zhang 2018 look for such twins), and so does one image alone. Both
    in [0, 1] or alike; `classes` [n], of both: then only samples of a class are compared.
    """
    among_examples = nearest(examples, classes)
    return nearest(samples, classes) / among_examples if among_examples > 0 else 1.0


def nearest(images: torch.Tensor, classes: torch.Tensor | None = None) -> float:
    """The mean Euclidean distance of an image to the nearest other one, of its class; 0 where there is no other."""
    rows = images.detach().flatten(1).float().cpu()
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    is_other = ~torch.eye(len(rows), dtype=torch.bool)
    if classes is not None:
        is_other &= classes[:, None] == classes
    has_other = is_other.any(1)
    if not has_other.any():
        return 0.0
    return float(distances.masked_fill(~is_other, math.inf).amin(1)[has_other].mean())
