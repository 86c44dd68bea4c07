"""Writes texts with a causal language model, token after token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


@torch.no_grad()
def sample_tokens(
    network: Any,
    prompt: Sequence[int],
    *,
    length: int,
    temperature: float,
    top_p: float,
    generator: torch.Generator,
    end_token: int | None = None,
) -> list[int]:
    """What follows the prompt: `length` tokens, or fewer where the end token comes first, which is left out.

    Each is drawn by `generator`, a CPU's, so that nothing else is disturbed; `network` should be in evaluation mode.
    """
    asked = torch.tensor([list(prompt)], device=network.device)
    cache = None
    written: list[int] = []
    while len(written) < length:
        mask = torch.ones(1, len(prompt) + len(written), dtype=torch.int64, device=network.device)
        answer = network(input_ids=asked, attention_mask=mask, past_key_values=cache, use_cache=True)
        token = draw_token(answer.logits[0, -1].float().cpu(), temperature, top_p, generator)
        if token == end_token:
            break
        written.append(token)
        cache, asked = answer.past_key_values, torch.tensor([[token]], device=network.device)
    return written


def draw_token(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """A token of `logits` [vocabulary], among the likeliest that together have `top_p` (Holtzman et al. 2020)."""
    likely, tokens = torch.softmax(logits / temperature, 0).sort(descending=True, stable=True)
    is_kept = likely.cumsum(0) - likely < top_p  # the first always is
    return int(tokens[torch.multinomial(likely * is_kept, 1, generator=generator)])
