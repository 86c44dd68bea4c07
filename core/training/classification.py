"""What it takes to train and judge a classifier: weighted losses, evaluation, the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional

from core.memory import is_out_of_memory
from core.training.hardest import LISTED, ExampleLosses, Hardest
from core.training.labelled import Labelled
from core.training.run import Run

EVALUATION_ROWS = 256
SAMPLE_ROWS = 2000
UNKNOWN = -1  # the label of an example without one
MAX_NAMED_CLASSES = 40


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, *, weights: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Of each example, [rows]; `smoothing` spreads that much of the target over all classes (Szegedy et al. 2016).

    `weights` [classes] multiply the loss of a class's examples; the mean over rows is not divided by them again, so
    that a batch cut into parts has the gradient of the whole.
    """
    losses = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    return losses * weights[labels]


def class_weights(wanted: Literal["balanced"] | None, data: Labelled) -> torch.Tensor:
    """The weight [classes] of each class in the loss."""
    if wanted is None or data.labels is None:
        return torch.ones(len(data.class_names))
    return balanced_weights(data.labels, len(data.class_names))


def balanced_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights [classes] that let every class count the same: examples / (classes * examples of the class)."""
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.clamp(min=1).float())


@dataclass(frozen=True)
class Evaluation:
    """How a classifier did on labelled examples; `confusion` [classes, classes] counts true (rows) by predicted."""

    loss: float
    confusion: torch.Tensor

    @property
    def accuracy(self) -> float:
        """Fraction that was right."""
        return float(self.confusion.diagonal().sum() / self.confusion.sum())

    @property
    def macro_f1(self) -> float:
        """Mean over the classes of the harmonic mean of precision and recall."""
        right = self.confusion.diagonal().double()
        named = (self.confusion.sum(0) + self.confusion.sum(1)).double()
        return float((2 * right / named.clamp(min=1))[named > 0].mean())

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Loss, accuracy and F1, named with `prefix`."""
        return {
            f"{prefix}loss": self.loss,
            f"{prefix}accuracy": self.accuracy,
            f"{prefix}macro_f1": self.macro_f1,
        }


class Classifying(Protocol):
    """A classifier, whatever it is made of."""

    @property
    def network(self) -> nn.Module:
        """What learns."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""

    def prepare(self, examples: Any) -> Any:
        """All examples in the form that batches are taken from by rows."""

    def logits(self, batch: Any) -> torch.Tensor:
        """Logits [rows, classes] of a batch."""

    def save(self, folder: Path) -> None:
        """Write the weights and all that reads them."""


class Prepared(NamedTuple):
    """Examples in the form that batches are taken from by rows, and the class of each."""

    examples: Any
    labels: torch.Tensor  # [n] int64


def prepare(classifier: Classifying, data: Labelled, run: Run) -> Prepared:
    """The data as the classifier takes it; says how many texts are cut."""
    examples = classifier.prepare(data.examples)
    truncated = getattr(examples, "truncated", 0)
    if truncated:
        longest = int(examples.lengths.max())
        run.message(f"{truncated:,} of {len(data):,} texts are longer than {longest} tokens and are cut there", "warn")
    labels = data.labels if data.labels is not None else torch.full((len(data),), UNKNOWN)
    return Prepared(examples, labels)


def prepare_validation(classifier: Classifying, data: Labelled | None, run: Run) -> Prepared | None:
    """As `prepare`, if there is anything to validate on."""
    return None if data is None else prepare(classifier, data, run)


@torch.no_grad()
def evaluate(classifier: Classifying, data: Prepared, *, rows: torch.Tensor | None = None) -> Evaluation:
    """Judge all examples, or these rows, in evaluation mode; the loss is the plain cross-entropy."""
    classes = len(classifier.class_names)
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    total = 0.0
    classifier.network.eval()
    rows = torch.arange(len(data.labels)) if rows is None else rows
    for block, logits in _judged(classifier, data, rows):
        truth = data.labels[block]
        total += float(functional.cross_entropy(logits, truth, reduction="sum"))
        confusion += torch.bincount(truth * classes + logits.argmax(1), minlength=classes * classes)
    return Evaluation(total / len(rows), confusion.view(classes, classes))


def _judged(classifier: Classifying, data: Prepared, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Some of the rows and their logits, on the CPU; fewer at a time where memory runs out."""
    start, size = 0, EVALUATION_ROWS
    while start < len(rows):
        block = rows[start : start + size]
        try:
            logits = classifier.logits(data.examples[block]).float().cpu()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
            size = max(1, min(size, len(block)) // 2)
            continue
        yield block, logits
        start += size


def hardest_of(
    classifier: Classifying, data: Prepared, losses: ExampleLosses, *, count: int = LISTED
) -> Hardest | None:
    """The examples of the highest mean losses, and what is said of them; None where nothing was learned."""
    rows, means = losses.hardest(count)
    if not len(rows):
        return None
    classifier.network.eval()
    with torch.no_grad():
        blocks = [logits for _, logits in _judged(classifier, data, rows)]
    logits, labels, names = torch.cat(blocks), data.labels[rows], classifier.class_names
    return Hardest(
        rows=rows,
        losses=means,
        labels=[names[label] for label in labels.tolist()],
        predicted=[names[label] for label in logits.argmax(1).tolist()],
        probabilities=logits.softmax(1).gather(1, labels[:, None])[:, 0].tolist(),
    )


def write_results(
    classifier: Classifying, run: Run, *, training: Prepared, validation: Prepared | None
) -> dict[str, float]:
    """Write the classifier and, where it was validated, its confusion matrix; answers the last metrics.

    Those of the training data are of a sample of it.
    """
    metrics = evaluate(classifier, training, rows=sample_rows(len(training.labels))).metrics("train_")
    if validation is not None:
        found = evaluate(classifier, validation)
        metrics |= found.metrics("valid_")
        write_confusion_matrix(found.confusion, classifier.class_names, run.artifacts / "confusion_matrix.png")
    classifier.network.eval()
    classifier.save(run.artifacts)
    return metrics


def sample_rows(count: int) -> torch.Tensor:
    """Rows to judge training data by: all, or SAMPLE_ROWS of them, always the same."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:SAMPLE_ROWS]


def write_confusion_matrix(confusion: torch.Tensor, class_names: Sequence[str], path: Path) -> None:
    """Draw true classes (rows) against predicted ones, shaded by the fraction of the true class, as PNG."""
    from matplotlib.figure import Figure

    counts = confusion.numpy()
    fractions = counts / counts.sum(1, keepdims=True).clip(min=1)
    side = min(16.0, 2.5 + 0.45 * len(class_names))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shades, ax=axes, label="fraction of the true class")
    axes.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
    if len(class_names) <= MAX_NAMED_CLASSES:
        places = range(len(class_names))
        axes.set_xticks(places, [_short(name) for name in class_names], rotation=90)
        axes.set_yticks(places, [_short(name) for name in class_names])
        for row in places:
            for column in places:
                shade = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(column, row, counts[row, column], ha="center", va="center", color=shade, fontsize=7)
    figure.savefig(path, dpi=100)


def _short(name: str) -> str:
    return (name if len(name) <= 20 else f"{name[:19]}…").replace("$", r"\$")
