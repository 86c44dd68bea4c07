"""Notices in a run's numbers what usually ruins it, and says so once, with the cure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

MEMORY = 0.8  # of the running mean of the loss, a log
RISE = 2.0  # times the lowest mean so far: from there on the loss is said to rise,
LEAST_RISE = 0.2  # if it is also by this share of the first loss: what is nearly nothing may double
LEAST_LOGS = 5  # before a rise is believed
LOST = (
    "The {name} is {value} at step {step}: the weights are lost from here on. Lower learning_rate, set "
    "gradient_clip to 1, or take precision float32."
)


class Watch:
    """Looks at the `loss` that a run logs; other numbers are its method's own business.

    `should_fall`: whether a loss that rises is a bad sign; that of a policy gradient may do as it likes.
    """

    def __init__(self) -> None:
        self.should_fall = True
        self._mean: float | None = None
        self._first = self._lowest = math.inf
        self._logs = 0
        self._told: set[str] = set()

    def warnings(self, step: int, values: Mapping[str, float]) -> Iterator[str]:
        """What is to be said after these numbers; each thing once in a run."""
        loss = values.get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            yield from self._once("finite", LOST.format(name="loss", value=loss, step=step))
            return
        if not self.should_fall:
            return
        self._logs += 1
        self._first = loss if self._logs == 1 else self._first
        self._mean = loss if self._mean is None else MEMORY * self._mean + (1 - MEMORY) * loss
        if self._logs >= LEAST_LOGS:
            rise = self._mean - self._lowest
            if self._lowest > 0 and rise > (RISE - 1) * self._lowest and rise > LEAST_RISE * self._first:
                yield from self._once(
                    "rise",
                    f"The loss has risen to {self._mean:.4g} at step {step}, from {self._lowest:.4g} at its best: "
                    "learning_rate may be too high. Lower it, or set warmup.",
                )
            self._lowest = min(self._lowest, self._mean)

    def _once(self, about: str, warning: str) -> Iterator[str]:
        if about not in self._told:
            self._told.add(about)
            yield warning
