"""Vectors of texts, a few texts a step."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from core.errors import InvalidRequest
from core.networks.word_vectors import WordVectors
from core.serving.generation import Message
from core.serving.opening import Encoder, LanguageModel, Opened, refuse_nan
from core.serving.pooling import Pooling

TEXTS_AT_ONCE = 8
TOKENS_AT_ONCE = 2048  # with those that pad; of a longer text all
Text = str | Sequence[int]


def embed(model: Opened, inputs: Sequence[Text], *, dimensions: int | None) -> Iterator[list[Message]]:
    """A `started`, then a `vector` each: its float32 numbers, little-endian, in base64.

    Encoders pool as their folder says; causal models give the mean of their last states, and word vectors that of the
    known words, at unit length. `dimensions`: only so many of the first numbers, at unit length again. Raises
    InvalidRequest.
    """
    size = _size(model)
    if dimensions is not None and dimensions > size:
        raise InvalidRequest(f"this model's vectors have {size} numbers: ask for no more", param="dimensions")
    tokens = [_tokens(model, text, number) for number, text in enumerate(inputs)]
    yield [{"type": "started", "prompt_tokens": sum(map(len, tokens))}]
    at_once = max(1, min(TEXTS_AT_ONCE, TOKENS_AT_ONCE // max(map(len, tokens))))
    for start in range(0, len(tokens), at_once):
        vectors = _vectors(model, tokens[start : start + at_once]).float().cpu()
        refuse_nan(vectors)
        if dimensions is not None:
            vectors = functional.normalize(vectors[:, :dimensions], dim=-1)
        yield [_told(start + row, vector) for row, vector in enumerate(vectors)]


def _told(index: int, vector: torch.Tensor) -> Message:
    numbers = vector.contiguous().numpy().astype("<f4").tobytes()
    return {"type": "vector", "index": index, "base64": base64.b64encode(numbers).decode()}


def _size(model: Opened) -> int:
    if isinstance(model, WordVectors):
        return model.inputs.shape[1]
    return int(model.network.config.get_text_config().hidden_size)


def _tokens(model: Opened, text: Text, number: int) -> list[Any]:
    """Token numbers, of word vectors words; raises InvalidRequest that names the input."""
    where = f"input {number}"
    if isinstance(model, WordVectors):
        words = text.split() if isinstance(text, str) else [_word(model, one, where) for one in text]
        known = [word for word in (_known(model, word) for word in words) if word is not None]
        if not known:
            raise InvalidRequest(f"{where} holds no word that this model knows", param="input")
        return known
    tokens = list(model.tokenizer(text, verbose=False)["input_ids"] if isinstance(text, str) else text)
    rows = model.network.get_input_embeddings().num_embeddings
    if not tokens or not all(0 <= token < rows for token in tokens):
        what = "holds no token" if not tokens else f"holds a token that is none of 0 to {rows - 1}"
        raise InvalidRequest(f"{where} {what}", param="input")
    if len(tokens) > model.max_length:
        raise InvalidRequest(
            f"this model's maximum context length is {model.max_length:,} tokens, and {where} has {len(tokens):,}: "
            "send it in parts",
            param="input",
            code="context_length_exceeded",
        )
    return tokens


def _word(model: WordVectors, number: int, where: str) -> str:
    if not 0 <= number < len(model.words):
        raise InvalidRequest(f"{where} holds the token {number}; there are 0 to {len(model.words) - 1}", param="input")
    return model.words[number]


def _known(model: WordVectors, word: str) -> str | None:
    """The word as the model has it: training may have turned all words to lower case."""
    return next((form for form in (word, word.lower()) if len(model.rows_of([form]).rows)), None)


@torch.inference_mode()
def _vectors(model: Opened, tokens: Sequence[Sequence[Any]]) -> torch.Tensor:
    if isinstance(model, WordVectors):
        means = torch.stack([model.mean(model.rows_of(words)).mean(0) for words in tokens])
        return functional.normalize(means, dim=-1)
    network = model.network.base_model if isinstance(model, LanguageModel) else model.network
    pooling = model.pooling if isinstance(model, Encoder) else Pooling()
    inputs, mask = _padded(tokens, model.tokenizer.pad_token_id or 0, model.network.device)
    return pooling(network(input_ids=inputs, attention_mask=mask).last_hidden_state, mask)


def _padded(tokens: Sequence[Sequence[int]], pad_token: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of equal length [texts, tokens], padded behind, and which of them are tokens."""
    longest = max(map(len, tokens))
    inputs = torch.full((len(tokens), longest), pad_token)
    mask = torch.zeros(len(tokens), longest, dtype=torch.int64)
    for row, numbers in enumerate(tokens):
        inputs[row, : len(numbers)] = torch.tensor(numbers)
        mask[row, : len(numbers)] = 1
    return inputs.to(device), mask.to(device)
