"""Lets a model write: the likeliest tokens after a prompt, or of an answer to what it reads; or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
import transformers

from core.errors import TrainingFailed


def ends_of_text(network: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a text, as the base's generation_config and its tokenizer say."""
    own = network.generation_config.eos_token_id
    ends = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    return sorted({token for token in ends if token is not None})


@torch.no_grad()
def write(
    network: Any, tokens: Sequence[int], *, max_new_tokens: int, ends: Sequence[int], pad_token: int, beams: int = 1
) -> list[int]:
    """What the network writes, without the prompt of a causal model; greedily, or by search with so many `beams`.

    `network`: a model of transformers that generates, perhaps with adapters. `ends`: tokens that end it.
    """
    network.eval()
    inputs = torch.tensor([list(tokens)], device=next(network.parameters()).device)
    own = network.generation_config
    settings = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=beams,
        eos_token_id=list(ends) or None,
        pad_token_id=pad_token,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        forced_bos_token_id=own.forced_bos_token_id,
    )
    written = network.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=settings)[0].tolist()
    start = 1 if network.config.is_encoder_decoder else len(tokens)
    return list(written[start:])


@torch.no_grad()
def complete(
    network: Any,
    prompts: Sequence[Sequence[int]],
    *,
    count: int = 1,
    max_new_tokens: int,
    ends: Sequence[int],
    pad_token: int,
    temperature: float | None = None,
) -> list[list[int]]:
    """`count` completions of each prompt, one prompt's after another's, up to and with the token that ends one.

    `network`: a causal model of transformers that takes positions, perhaps with adapters, in the mode that it is in.
    Each token is drawn from softmax(logits / temperature), by torch's own generator, and from nothing else: no top-k,
    no penalties; `temperature` None: the likeliest. Prompts are padded on the left, and their positions count from
    their first token; each is read once, whatever the `count`. Raises TrainingFailed where nothing can be drawn.
    """
    device = next(network.parameters()).device
    longest = max(map(len, prompts))
    tokens = torch.tensor([[pad_token] * (longest - len(each)) + list(each) for each in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts], device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    keep = {"logits_to_keep": 1} if "logits_to_keep" in signature(inner.forward).parameters else {}
    answer = network(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=True, **keep)
    cache = answer.past_key_values
    cache.batch_repeat_interleave(count)
    if temperature is not None and not answer.logits[:, -1].isfinite().all():  # CUDA would end with the draw
        raise TrainingFailed(
            "the model gives no probabilities any more: its weights are lost. Lower learning_rate, set gradient_clip "
            "to 1, or take precision float32"
        )
    logits, mask, positions = (
        each.repeat_interleave(count, 0) for each in (answer.logits[:, -1], mask, positions[:, -1:])
    )
    is_open, stops = torch.ones(len(mask), dtype=torch.bool, device=device), torch.tensor(list(ends), device=device)
    written: list[torch.Tensor] = []
    while True:
        written.append(_next(logits, temperature).where(is_open, pad_token))
        is_open = is_open & ~torch.isin(written[-1], stops)
        if len(written) == max_new_tokens or not is_open.any():
            break
        mask, positions = torch.cat((mask, mask.new_ones(len(mask), 1)), 1), positions + 1
        inputs = {"input_ids": written[-1][:, None], "attention_mask": mask, "position_ids": positions}
        logits = network(**inputs, past_key_values=cache, use_cache=True).logits[:, -1]
    return [_until_end(row, ends) for row in torch.stack(written, 1).tolist()]


def _next(logits: torch.Tensor, temperature: float | None) -> torch.Tensor:
    if temperature is None:
        return logits.argmax(1)
    return torch.multinomial((logits.float() / temperature).softmax(1), 1)[:, 0]


def _until_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return list(tokens[: end + 1])
