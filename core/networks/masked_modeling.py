"""Masked language models of transformers: attention within packed texts, and logits only where they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from core.data.packing import IGNORED, NO_SEQUENCE, PackedBatch
from core.networks.language_modeling import within_sequences

# What turns last hidden states into logits, in the families of transformers.
HEADS = (
    ("cls",),
    ("lm_head",),
    ("predictions",),
    ("head", "decoder"),
    ("generator_predictions", "generator_lm_head"),
    ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
)


def masked_logits(
    network: nn.Module, batch: PackedBatch, *, head: Sequence[nn.Module], is_packed: bool
) -> torch.Tensor:
    """Logits [targets, vocabulary] at the places to guess; `head` is what `prediction_head` answers.

    Of the other places, five sixths of all, logits are never made: for small networks that is half of the work.
    `is_packed`: what `can_pack` answers; otherwise every row is one text.
    """
    is_target = batch.targets != IGNORED
    inputs = encoder_inputs(network, batch) if is_packed else {"attention_mask": batch.sequences != NO_SEQUENCE}
    if not head:
        every: torch.Tensor = network(input_ids=batch.tokens, **inputs).logits
        return every[is_target]
    hidden: torch.Tensor = _encoder(network)(input_ids=batch.tokens, **inputs).last_hidden_state[is_target]
    for module in head:
        hidden = module(hidden)
    return hidden


def encoder_inputs(network: Any, batch: PackedBatch) -> dict[str, Any]:
    """Masks and positions by which an encoder sees each packed text alone."""
    inputs: dict[str, Any] = {"position_ids": batch.positions + _first_position(network)}
    is_single = bool((batch.sequences == batch.sequences[:, :1]).all())
    if "sliding_attention" in (getattr(network.config, "layer_types", None) or ()):
        reach = network.config.sliding_window
        within = within_sequences(batch.sequences)
        near = within_sequences(batch.sequences, reach=reach)
        return inputs | {"attention_mask": {"full_attention": within, "sliding_attention": near}}
    return inputs if is_single else inputs | {"attention_mask": within_sequences(batch.sequences)}


def _encoder(network: Any) -> nn.Module:
    module: nn.Module = network.base_model
    return module


def _first_position(network: Any) -> int:
    """Where positions begin: RoBERTa's, whose padding has one of its own, behind that."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


@torch.no_grad()
def prediction_head(network: Any) -> tuple[nn.Module, ...]:
    """The modules that make logits of last hidden states, one after another; none where they are not known."""
    tokens = torch.arange(4, device=network.device)[None]
    hidden, logits = _encoder(network.eval())(input_ids=tokens).last_hidden_state, network(input_ids=tokens).logits
    for names in HEADS:
        if not all(hasattr(network, name) for name in names):
            continue
        modules = tuple(getattr(network, name) for name in names)
        found = hidden
        for module in modules:
            found = module(found)
        if torch.allclose(found, logits, rtol=1e-3, atol=1e-4):
            return modules
    return ()


@torch.no_grad()
def can_pack(network: Any) -> bool:
    """Whether an encoder sees each of several texts in a row as it sees it alone."""
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]], device=network.device)
    sequences = torch.tensor([[0, 0, 0, 1, 1, 1]], device=network.device)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]], device=network.device)
    batch = PackedBatch(tokens, tokens, positions, sequences)
    encoder = _encoder(network.eval())
    alone = encoder(input_ids=tokens[:, 3:]).last_hidden_state
    try:
        packed = encoder(input_ids=tokens, **encoder_inputs(network, batch)).last_hidden_state[:, 3:]
    except (TypeError, RuntimeError):  # it takes no positions, or no such masks
        return False
    return torch.allclose(packed, alone, rtol=1e-3, atol=1e-4)
