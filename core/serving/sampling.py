"""Draws an answer's next token from a model's logits, as the hosted API's settings say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `temperature` 0: always the likeliest. `logprobs`: how many alternatives are told of."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None


class Drawn(NamedTuple):
    """A token, and the natural logarithms of the model's own probabilities: its, and those of the likeliest tokens."""

    token: int
    logprob: float | None
    likeliest: Sequence[tuple[int, float]]


class Sampler:
    """Draws the tokens of one answer.

    Penalties count what the answer has so far (https://platform.openai.com/docs/api-reference/chat/create);
    `repetition_penalty` is the model's own, of its generation_config.json, and counts the prompt too (Keskar et al.
    2019, CTRL).
    """

    def __init__(
        self, sampling: Sampling, *, index: int, prompt: Sequence[int], repetition_penalty: float = 1.0
    ) -> None:
        self._sampling = sampling
        self._counts: dict[int, int] = {}
        self._seen = set(prompt) if repetition_penalty != 1.0 else set()
        self._repetition_penalty = repetition_penalty
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed + index)

    def draw(self, logits: torch.Tensor) -> Drawn:
        """The next token by these logits, [vocabulary]."""
        logits = logits.float().cpu()
        token = self._choose(self._adjusted(logits))
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._sampling.logprobs is None:
            return Drawn(token, None, ())
        logprobs = logits.log_softmax(0)
        values, tokens = logprobs.topk(min(self._sampling.logprobs, len(logprobs)))
        likeliest = tuple(zip(tokens.tolist(), map(told, values.tolist()), strict=True))
        return Drawn(token, told(float(logprobs[token])), likeliest)

    def _adjusted(self, logits: torch.Tensor) -> torch.Tensor:
        sampling = self._sampling
        is_penalised = bool(sampling.presence_penalty or sampling.frequency_penalty)
        if not (sampling.logit_bias or is_penalised or self._repetition_penalty != 1.0):
            return logits
        logits = logits.clone()
        if self._repetition_penalty != 1.0:
            seen = torch.tensor(sorted(self._seen.union(self._counts)))
            scores = logits[seen]
            penalty = self._repetition_penalty
            logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
        if is_penalised:
            for token, count in self._counts.items():
                logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
        for token, bias in sampling.logit_bias.items():
            logits[token] += bias
        return logits

    def _choose(self, logits: torch.Tensor) -> int:
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        below = (
            logits.double() - logits.max()
        )  # before it is divided: by the least of temperatures all would be infinite
        probabilities = (below / self._sampling.temperature).softmax(0)
        if self._sampling.top_p < 1:
            probabilities = nucleus(probabilities, self._sampling.top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero for all but the likeliest tokens that together have `top_p` (Holtzman et al. 2020); at least one is left."""
    values, order = probabilities.sort(descending=True)
    before = values.cumsum(0) - values
    kept = torch.zeros_like(probabilities)
    kept[order] = torch.where(before < top_p, values, 0.0)
    kept[order[0]] = values[0]
    return kept


def told(logprob: float) -> float:
    """As JSON can hold it: a token that cannot come has -9999, as at the hosted API."""
    return logprob if math.isfinite(logprob) else -9999.0
