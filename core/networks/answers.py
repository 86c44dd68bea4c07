"""What a classifier says of examples: its logits, and the features that they are made of."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from core.networks.classifier import Batch, Classifier

ROWS_AT_ONCE = 256


class Answers(NamedTuple):
    """Of some examples."""

    logits: torch.Tensor  # [rows, classes] float32
    features: torch.Tensor  # [rows, width] float32, or [rows, 0] where nobody asked for them

    def rows(self, rows: torch.Tensor) -> Answers:
        """Of these rows."""
        return Answers(self.logits[rows], self.features[rows])


@torch.no_grad()
def answer(classifier: Classifier, batch: Batch, *, with_features: bool) -> Answers:
    """What the classifier says of a batch, in evaluation mode."""
    classifier.network.eval()
    logits, features = classifier.logits_and_features(batch)
    return Answers(logits.float(), vectors(features).float() if with_features else logits.new_empty(len(logits), 0))


def answer_all(
    classifier: Classifier, examples: Any, *, with_features: bool = False, rows: torch.Tensor | None = None
) -> Answers:
    """What the classifier says of all examples, or of these rows, on the CPU."""
    rows = torch.arange(len(examples)) if rows is None else rows
    blocks = [answer(classifier, examples[block], with_features=with_features) for block in rows.split(ROWS_AT_ONCE)]
    return Answers(*(torch.cat([tensor.cpu() for tensor in tensors]) for tensors in zip(*blocks, strict=True)))


def vectors(features: torch.Tensor) -> torch.Tensor:
    """What a head takes as one vector an example: of a text's tokens the first, of a small map all of it."""
    return features[:, 0] if features.dim() == 3 else features.flatten(1)
