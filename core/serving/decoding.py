"""Has a network read the next tokens of several answers at once.

What takes the time is to read the weights from memory, and they are read once for all. Answers keep caches of their
own, so that they come and go freely; side by side stand only the keys and values of the layer that is computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import transformers
from torch.nn.functional import pad
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from core.errors import InvalidRequest

# Networks whose rows depend on nothing but their own tokens, positions and mask, as a test says of each.
ROWWISE = frozenset({"gemma", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3"})
ROTATIONS = frozenset({"default", "linear", "llama3", "yarn"})  # the others depend on the longest row
SPREAD = 1024  # tokens by which lengths may differ: shorter ones are padded


def new_cache(network: Any) -> Any:
    """An empty cache; raises InvalidRequest for a network that keeps what it has read in another way, or not at all."""
    cache = transformers.DynamicCache(config=network.config)
    has_attention = any(isinstance(layer, CacheLayerMixin) for layer in cache.layers)
    if not has_attention or "past_key_values" not in inspect.signature(network.forward).parameters:
        raise InvalidRequest(
            f"a model of type '{network.config.model_type}' cannot write here: its layers keep no keys and values of "
            "what they have read",
            param="model",
            code="unsupported_model",
        )
    return cache


@dataclass(eq=False)
class Next:
    """One more token for each row of an answer's cache; and the logits of what follows, once they are read."""

    tokens: Sequence[int]
    cache: Any
    logits: torch.Tensor | None = None  # [rows, vocabulary]
    error: Exception | None = None

    @property
    def length(self) -> int:
        """Tokens that were read before."""
        length: int = self.cache.get_seq_length()
        return length


class Decoder:
    """A network, and what it is to read next."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._waiting: WeakKeyDictionary[Next, None] = WeakKeyDictionary()  # who has left waits for nothing

    def add(self, tokens: Sequence[int], cache: Any) -> Next:
        """Wait for the logits of what follows."""
        one = Next(tokens, cache)
        self._waiting[one] = None
        return one

    def logits(self, one: Next) -> torch.Tensor:
        """They, [rows, vocabulary]; if they were not read yet, those of all that wait and can go along are, too."""
        if one.logits is None and one.error is None:
            self._read([one, *(other for other in self._waiting if other is not one and self._is_alike(one, other))])
        if one.error is not None:
            raise one.error
        assert one.logits is not None  # noqa: S101 - read, or failed
        return one.logits

    def _is_alike(self, one: Next, other: Next) -> bool:
        config = self._network.config
        rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
        layers = (*one.cache.layers, *other.cache.layers)
        return (
            config.model_type in ROWWISE
            and rotation in ROTATIONS
            and abs(one.length - other.length) <= SPREAD
            and all(type(layer) is DynamicLayer for layer in layers)
        )

    def _read(self, answers: Sequence[Next]) -> None:
        """What fails, fails for all: their caches have seen a part of it."""
        for one in answers:
            del self._waiting[one]
        try:
            logits = _logits(self._network, answers)
        except Exception as error:
            for one in answers:
                one.error = error
        else:
            for one, found in zip(answers, logits.split([len(one.tokens) for one in answers]), strict=True):
                one.logits = found


@torch.inference_mode()
def _logits(network: Any, answers: Sequence[Next]) -> torch.Tensor:
    """Of what follows each row, [rows, vocabulary]."""
    tokens = torch.tensor([[token] for one in answers for token in one.tokens], device=network.device)
    lengths = torch.tensor([one.length for one in answers for _ in one.tokens], device=network.device)
    longest = max(one.length for one in answers)
    seen = torch.arange(longest + 1, device=network.device) >= longest - lengths[:, None]  # all but padding
    positions = {"position_ids": lengths[:, None]} if len(answers) > 1 else {}  # which not all networks take
    found = network(
        input_ids=tokens,
        attention_mask=seen.long(),
        past_key_values=_cache(answers),
        use_cache=True,
        logits_to_keep=1,
        **positions,
    )
    logits: torch.Tensor = found.logits[:, -1]
    return logits


def _cache(answers: Sequence[Next]) -> Any:
    if len(answers) == 1:
        return answers[0].cache
    layers = zip(*(one.cache.layers for one in answers), strict=True)
    return transformers.Cache(layers=[SideBySide(own) for own in layers])


class SideBySide(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers' own classes are typed in part
    """A layer of several caches: each keeps its own; who looks sees them as rows of one, padded in front."""

    def __init__(self, own: Sequence[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._own = own

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add to each its rows; answers all of them."""
        rows = [len(layer.keys) for layer in self._own]
        parts = zip(self._own, key_states.split(rows), value_states.split(rows), strict=True)
        whole = [layer.update(keys, values) for layer, keys, values in parts]
        return _padded([keys for keys, _ in whole]), _padded([values for _, values in whole])

    def get_seq_length(self) -> int:
        """Of the longest."""
        return max(int(layer.get_seq_length()) for layer in self._own)


def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Keys or values of several caches, [rows, heads, tokens, size], as one."""
    longest = max(one.shape[-2] for one in rows)
    return torch.cat([pad(one, (0, 0, longest - one.shape[-2], 0)) for one in rows])
