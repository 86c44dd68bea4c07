"""Opens a model folder for trying out: what writes texts, what makes vectors of them, or tables of word vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from core.errors import InvalidData, InvalidRequest
from core.networks.chat_template import ends_of_turn, give_template
from core.networks.generation import ends_of_text
from core.networks.gguf import gguf_of
from core.networks.loading import read_config
from core.networks.pretrained import open_config, open_pretrained, open_tokenizer
from core.networks.saving import is_network_config, load_network
from core.networks.word_vectors import WordVectors
from core.serving.decoding import Decoder
from core.serving.pooling import Pooling, read_pooling

LONGEST = 32_768
MOST_PENALTY = 100.0
WORD_VECTORS = "weightworks-word-vectors"
AUTO = transformers.models.auto.modeling_auto


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model; `text_ends`: the tokens that end a text."""

    network: Any
    tokenizer: Any
    max_length: int  # in tokens
    text_ends: frozenset[int]
    repetition_penalty: float

    @cached_property
    def turn_ends(self) -> frozenset[int]:
        """The tokens that end an assistant's turn, as the chat template tells when it is first asked."""
        return self.text_ends.union(ends_of_turn(self.tokenizer))

    @cached_property
    def decoder(self) -> Decoder:
        """Where its answers meet."""
        return Decoder(self.network)


@dataclass(frozen=True)
class Encoder:
    """A network that makes vectors of tokens, and how they become one."""

    network: Any
    tokenizer: Any
    max_length: int  # in tokens
    pooling: Pooling


Opened = LanguageModel | Encoder | WordVectors


def open_model(folder: Path, *, device: str) -> Opened:
    """The model in the folder, in float32, in evaluation mode; raises InvalidData for what takes no text."""
    if not gguf_of(folder):
        config = read_config(folder)
        if is_network_config(config):
            return _open_ours(folder, str(config["model_type"]))
    config = open_config(folder, param="model")
    if gguf_of(folder) or _writes(config):
        return _open_language_model(folder, config, device=device)
    if config.is_encoder_decoder or config.model_type not in AUTO.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise InvalidData(
            f"a model of type '{config.model_type}' ({', '.join(config.architectures or ['no architecture named'])}) "
            "cannot be tried out: causal language models, encoders of texts and word vectors can",
            param="model",
        )
    return _open_encoder(folder, config, device=device)


def _open_ours(folder: Path, model_type: str) -> WordVectors:
    if model_type != WORD_VECTORS:
        raise InvalidData(
            f"a model of type '{model_type}' takes no text: causal language models, encoders of texts and word vectors "
            "can be tried out",
            param="model",
        )
    found = load_network(folder)
    assert isinstance(found, WordVectors)  # noqa: S101 - its type says so
    return found


def _writes(config: Any) -> bool:
    """Whether the folder holds a causal language model: BERT, say, could be opened as one, but was not trained so."""
    causal = set(AUTO.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if config.architectures:
        return not causal.isdisjoint(config.architectures)
    return (
        config.model_type in AUTO.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and config.model_type not in AUTO.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def _open_language_model(folder: Path, config: Any, *, device: str) -> LanguageModel:
    network: Any
    network, missing = open_pretrained(folder, "AutoModelForCausalLM", param="model", config=config)
    _refuse_missing(missing)
    reading = open_tokenizer(folder, network, param="model", at_most=LONGEST)
    give_template(reading.tokenizer)
    return LanguageModel(
        network.to(device),
        reading.tokenizer,
        reading.max_length,
        frozenset(ends_of_text(network, reading.tokenizer)),
        _penalty(network.generation_config.repetition_penalty),
    )


def _penalty(given: Any) -> float:
    penalty = 1.0 if given is None else float(given)
    if not 1 / MOST_PENALTY <= penalty <= MOST_PENALTY:
        raise InvalidData(
            f"generation_config.json has the repetition_penalty {penalty:g}: it is about 1", param="model"
        )
    return penalty


def _open_encoder(folder: Path, config: Any, *, device: str) -> Encoder:
    network, missing = open_pretrained(folder, "AutoModel", param="model", config=config)
    _refuse_missing([name for name in missing if "pooler" not in name])  # which is not asked
    reading = open_tokenizer(folder, network, param="model", at_most=LONGEST)
    pooling = read_pooling(folder)
    length = min(reading.max_length, pooling.max_length or reading.max_length)
    return Encoder(network.to(device), reading.tokenizer, length, pooling)


def _refuse_missing(names: Sequence[str] | frozenset[str]) -> None:
    if names:
        raise InvalidData(f"the model lacks weights: {', '.join(sorted(names)[:3])}", param="model")


def refuse_nan(numbers: torch.Tensor) -> None:
    """Raise InvalidData where a model's numbers are none, or without end."""
    if not numbers.amax() < math.inf:  # the largest of some that hold NaN is NaN
        raise InvalidData("the model's weights make no numbers (NaN, or infinite): they are broken", param="model")


def language_model(found: Opened) -> LanguageModel:
    """What writes texts; raises InvalidRequest for what does not."""
    if isinstance(found, LanguageModel):
        return found
    raise InvalidRequest(
        "this model makes vectors and does not write texts: ask it at /v1/embeddings, or name a causal language model",
        param="model",
        code="unsupported_model",
    )
