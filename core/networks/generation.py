"""Lets a model write: the likeliest tokens after a prompt, or of an answer to what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers


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
