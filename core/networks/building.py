"""Makes a new classifier that fits its data: sizes, standardisation, vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from core.data.profile import Kind
from core.data.recordings import Hearing
from core.networks.architectures import BERT, Architecture, build
from core.networks.classifier import Classifier, Scaling
from core.networks.standardization import Standardization, moments
from core.networks.word_pieces import train_word_pieces


def build_classifier(
    architecture: Architecture,
    examples: torch.Tensor | Sequence[str],
    *,
    kind: Kind,
    class_names: tuple[str, ...],
    columns: tuple[str, ...] = (),
    hearing: Hearing | None = None,
    tokenizer: Any = None,
) -> Classifier:
    """A classifier with fresh weights, and all that it takes from its training examples without their classes.

    `hearing`: how waves became the frames that are examples. `tokenizer`: for texts, one to share; none: a vocabulary
    is learned from the texts.
    """
    if isinstance(examples, torch.Tensor):
        shape = tuple(examples.shape[1:])
        network = build(architecture, class_names=class_names, shape=shape)
        scaling = standardize(network, examples)
        return Classifier(network, kind, class_names, shape=shape, scaling=scaling, columns=columns, hearing=hearing)
    assert isinstance(architecture, BERT)  # noqa: S101 - check_kind has seen to it
    if tokenizer is None:
        tokenizer = train_word_pieces(examples, size=architecture.vocabulary, max_length=architecture.max_length)
    network = build(architecture, class_names=class_names, vocabulary=len(tokenizer), pad_token=tokenizer.pad_token_id)
    return Classifier(network, kind, class_names, tokenizer=tokenizer, max_length=architecture.max_length)


def standardize(network: nn.Module, examples: torch.Tensor) -> Scaling | None:
    """Fit the standardisation inside our own networks; answers the scaling that a transformers model needs outside."""
    inside = getattr(network, "standardization", None)
    if isinstance(inside, Standardization):
        inside.fit(examples)
        return None
    mean, std = moments(examples)
    return Scaling(tuple(mean.tolist()), tuple(std.tolist()))
