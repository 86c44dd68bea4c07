"""What the pretraining of language models has in common: settings, what is refused, the optimizer, the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.optim import AdamW

from core.data.packing import IGNORED, PackedBatch, PackedRows
from core.data.profile import Profile
from core.data.token_sequences import TokenSequences, tokenize
from core.errors import InvalidData, InvalidSpec
from core.spec import ModelReference, TrainingSpec, fill, model_field
from core.training.documents import LEAST_CHARACTERS
from core.training.run import Run

CONTEXT_LENGTH = 256
HELD_OUT = 0.02
MOST_TOKENS = 32_768  # that a row holds
FEW_TOKENS = 100_000
MOSTLY_EMPTY = 0.2


class LanguageSpec(TrainingSpec):
    """What the pretraining of every language model may ask for."""

    base: ModelReference | None = model_field(
        None,
        description="A language model to continue, made here or an uploaded folder; its tokenizer comes along. "
        "None: a new one.",
    )
    text: str | None = Field(
        None, min_length=1, max_length=200, description="Column of the texts; none: found by name."
    )
    vocabulary: int | None = Field(
        None, ge=300, le=250_000, description="Tokens learned from the data set, at most; a base has its own."
    )
    context_length: int | None = Field(
        None,
        ge=8,
        le=MOST_TOKENS,
        description="Tokens that a row holds; none: 256, or what the base takes if that is less.",
    )
    epochs: int | None = Field(10, ge=1, le=100_000, description="Passes over the data set.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Rows of context_length tokens in a gradient step.")
    learning_rate: float = Field(
        1e-3, gt=0, le=100, description="Size of a gradient step, at its peak; with a base: 0.0001."
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")
    gradient_clip: float | None = Field(1.0, gt=0, description="Largest norm of the gradient; none: not clipped.")
    validation_fraction: float | None = Field(
        None, gt=0, le=0.5, description="Part of the documents held out; 0.02 where there is no validation file."
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_start(cls, data: Any) -> Any:
        data = fill(data, "vocabulary", 8000, when=lambda given: given.get("base") is None)
        data = fill(data, "learning_rate", 1e-4, when=lambda given: given.get("base") is not None)
        return fill(data, "validation_fraction", HELD_OUT, when=lambda given: given.get("validation") is None)


def check_language(spec: LanguageSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    if spec.text is not None and spec.text not in profile.columns:
        named = ", ".join(map(repr, profile.columns)) or "none"
        raise InvalidSpec(f"there is no column {spec.text!r}; there are: {named}", param="text")
    if profile.words is not None and profile.words * 20 < LEAST_CHARACTERS:
        raise InvalidData(f"{profile.words:,} words are too few to learn a language from", param="dataset")


def choose_context(spec: LanguageSpec, limit: int | None) -> int:
    """Tokens a row; `limit`: what a base takes. Raises InvalidSpec where the spec asks for more."""
    if limit is None:
        return spec.context_length or CONTEXT_LENGTH
    if spec.context_length is not None and spec.context_length > limit:
        raise InvalidSpec(
            f"context_length is {spec.context_length}, and the base takes at most {limit} tokens",
            param="context_length",
        )
    return spec.context_length or min(CONTEXT_LENGTH, limit)


def read_tokens(
    texts: Iterable[str], tokenizer: Any, *, vocabulary: int, with_words: bool = False
) -> Iterator[TokenSequences]:
    """The texts' tokens, many texts at a time, of which a network knows `vocabulary`.

    Raises InvalidData where they do not fit together.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise InvalidData("the base has no tokenizer.json: save its tokenizer as a fast one", param="base")
    is_empty = True
    for found in tokenize(texts, tokenizer, with_words=with_words):
        if not len(found.tokens):
            continue
        is_empty = False
        if int(found.tokens.max()) >= vocabulary:
            raise InvalidData(
                f"the base's tokenizer has tokens beyond the {vocabulary:,} that its network knows: they are no pair",
                param="base",
            )
        yield found
    if is_empty:
        raise InvalidData("the documents hold no text that the tokenizer knows", param="dataset")


def decaying_matrices(network: nn.Module, spec: TrainingSpec, *, beta2: float) -> AdamW:
    """AdamW that decays matrices alone.

    Gains and biases of a few numbers do not overfit, and a gain that shrinks only makes the next layer's weights grow
    (Loshchilov & Hutter 2019 decay all; GPT-3 and transformers' Trainer leave these out). `beta2`: how long the mean
    of squared gradients remembers; 0.999 is long for runs of a few thousand steps.
    """
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learning if parameter.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [parameter for parameter in learning if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=spec.learning_rate, betas=(0.9, beta2), fused=True)


def say_what_was_read(rows: PackedRows, held_out: PackedRows | None, *, context_length: int, run: Run) -> None:
    """Tell the sizes, and warn where they are such that little can be learned."""
    tokens = len(rows.tokens)
    kept = "" if held_out is None else f"; {len(held_out.tokens):,} tokens are held out"
    run.message(f"{tokens:,} tokens in {len(rows):,} rows, {rows.padding:.1%} of them padding{kept}")
    if tokens < FEW_TOKENS:
        run.message(
            f"{tokens:,} tokens are few: a model from scratch learns them by heart rather than a language; send "
            "more text, or continue from a base",
            "warn",
        )
    if rows.padding > MOSTLY_EMPTY and len(rows) > 1:
        run.message(f"{rows.padding:.0%} of all places are padding: lower context_length or send longer texts", "warn")
    mean = tokens / len(rows.lengths)
    if mean < context_length / 8 and len(rows) > 1:
        run.message(
            f"documents have {mean:.0f} tokens on average, and none sees another: a context of {context_length} is "
            "hardly used. If lines of your file belong together, send JSON Lines with one text a document",
            "warn",
        )


def count_targets(batch: PackedBatch) -> torch.Tensor:
    """How many tokens are to be predicted, at least one, 0-d."""
    return (batch.targets != IGNORED).sum().clamp(min=1)


def perplexity(loss: float) -> float:
    """Of a mean loss in nats: among how many tokens, equally likely, a guess would be as hard."""
    return math.exp(min(loss, 100.0))


def sizes_of(network: nn.Module, rows: PackedRows, run: Run) -> dict[str, float]:
    """The last metrics: how much was learned from, how fast, and how large the network is."""
    return {
        "tokens": float(len(rows.tokens)),
        "padding": rows.padding,
        "tokens_per_second": run.history.latest().get("tokens_per_second", 0.0),
        "parameters": float(sum(parameter.numel() for parameter in network.parameters())),
    }
