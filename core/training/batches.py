"""Which examples each step learns from: a pure function of seed and step, so the place in the data is just the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar, overload

import torch

from core.spec import TrainingSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """One step's examples."""

    rows: torch.Tensor  # [batch] int64 indices into the data set
    step: int  # from 0
    epoch: int  # from 0
    is_epoch_end: bool


class Batches(Sequence[Batch]):
    """All batches of a run: each epoch is a permutation drawn from (seed, epoch).

    Its last batch may be smaller, or, with `drop_last`, is left out where it would be.
    """

    def __init__(
        self,
        examples: int,
        *,
        batch_size: int,
        seed: int,
        epochs: int | None = None,
        steps: int | None = None,
        drop_last: bool = False,
    ):
        self.examples = examples
        self.batch_size = min(batch_size, examples)
        self.seed = seed
        self.per_epoch = examples // self.batch_size if drop_last else -(-examples // self.batch_size)
        self.total = steps if steps is not None else self.per_epoch * (epochs or 1)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @classmethod
    def of(cls, examples: int, spec: TrainingSpec, *, drop_last: bool = False) -> Batches:
        """The batches that a spec asks for."""
        size, epochs, steps = spec.batch_size, spec.epochs, spec.steps
        return cls(examples, batch_size=size, seed=spec.seed, epochs=epochs, steps=steps, drop_last=drop_last)

    @property
    def epochs(self) -> int:
        """How many there are, the last one perhaps cut short."""
        return -(-self.total // self.per_epoch)

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, step: int) -> Batch: ...
    @overload
    def __getitem__(self, step: slice) -> Sequence[Batch]: ...
    def __getitem__(self, step: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(step, slice):
            return [self[index] for index in range(*step.indices(self.total))]
        if not 0 <= step < self.total:
            raise IndexError(step)
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        rows = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        is_end = place == self.per_epoch - 1 or step == self.total - 1
        return Batch(rows=rows, step=step, epoch=epoch, is_epoch_end=is_end)

    def _permutation(self, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.examples, generator=generator)


def split(examples: int, *, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row indices (training, validation), shuffled by `seed`; at least one row on each side."""
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed))
    held_out = min(max(1, round(examples * fraction)), examples - 1)
    return order[held_out:], order[:held_out]


def read_parts(
    read: Callable[[Path], Iterable[T]], inputs: Mapping[str, Path], spec: TrainingSpec
) -> tuple[list[T], list[T]]:
    """What is to be learned from and what is held out: a part of the data set, the validation file, or nothing."""
    training = list(read(inputs["dataset"]))
    if spec.validation_fraction is not None:
        rows, others = split(len(training), fraction=spec.validation_fraction, seed=spec.seed)
        return [training[row] for row in rows], [training[row] for row in others]
    return training, list(read(inputs["validation"])) if spec.validation is not None else []


class Whole(Protocol):
    """A data set that is one thing, and gives its rows."""

    def __len__(self) -> int: ...

    def rows(self, rows: torch.Tensor, /) -> Self:
        """Only these rows."""


Data = TypeVar("Data", bound=Whole)


def hold_out(data: Data, spec: TrainingSpec, *, read_validation: Callable[[], Data]) -> tuple[Data, Data | None]:
    """As `read_parts`, of a data set that was read as a whole."""
    if spec.validation_fraction is not None:
        rows, others = split(len(data), fraction=spec.validation_fraction, seed=spec.seed)
        return data.rows(rows), data.rows(others)
    return data, read_validation() if spec.validation is not None else None
