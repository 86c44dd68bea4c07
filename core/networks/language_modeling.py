"""What language models have in common: attention within sequences, and losses that never hold all logits at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from core.data.packing import IGNORED, PackedBatch

BLOCK_LOGITS = 2**23  # how many are held at once: 32 MiB in float32
BLOCK_LOGITS_ON_GPU = 2**27  # most of which would be idle in products of so few rows


def next_token_loss(
    network: nn.Module, batch: PackedBatch, *, head: nn.Linear | None, right: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of a batch's targets, summed, 0-d; `head` is what `vocabulary_head(network)` answers.

    `right`: a 0-d count, to which the targets are added that no other token was likelier than.

    `network`: a causal language model of transformers, perhaps with adapters. Positions begin anew with every
    sequence: by that it sees that rows are packed, and attends within sequences only (see `keeps_apart`); with a cache
    it would not look.
    """
    inputs = {"input_ids": batch.tokens, "position_ids": batch.positions, "use_cache": False}
    is_target = batch.targets != IGNORED
    if head is None:
        logits = network(**inputs).logits[is_target]
        if right is not None:
            wanted = logits.detach().gather(1, batch.targets[is_target][:, None])
            right += (wanted == logits.detach().amax(1, keepdim=True)).sum()
        return functional.cross_entropy(logits.float(), batch.targets[is_target], reduction="sum")
    hidden = decoder(network)(**inputs).last_hidden_state[is_target]
    return linear_cross_entropy(hidden, head.weight, batch.targets[is_target], bias=head.bias, right=right)


def token_log_probabilities(
    network: nn.Module, batch: PackedBatch, *, head: nn.Linear | None, temperature: float
) -> torch.Tensor:
    """The log-probability of each target by softmax(logits / temperature), [targets] float32, in the order of the rows.

    `head`: what `vocabulary_head(network)` answers. The logits are made block by block, and once more for the gradient,
    so that they are never all held.
    """
    inputs = {"input_ids": batch.tokens, "position_ids": batch.positions, "use_cache": False}
    is_target = batch.targets != IGNORED
    targets = batch.targets[is_target]
    if head is None:
        logits = network(**inputs).logits[is_target]
        return -functional.cross_entropy(logits.float() / temperature, targets, reduction="none")
    hidden = decoder(network)(**inputs).last_hidden_state[is_target]
    size = max(1, (BLOCK_LOGITS_ON_GPU if hidden.is_cuda else BLOCK_LOGITS) // len(head.weight))

    def block(part: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return -functional.cross_entropy(head(part).float() / temperature, wanted, reduction="none")

    found = [
        checkpoint(block, part, wanted, use_reentrant=False, preserve_rng_state=False)
        for part, wanted in zip(hidden.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(found)


def decoder(network: nn.Module) -> nn.Module:
    """The part of a language model below its head, whether or not it has adapters."""
    inner: Any = network.get_base_model() if hasattr(network, "get_base_model") else network  # type: ignore[operator]
    module: nn.Module = inner.base_model
    return module


@torch.no_grad()
def vocabulary_head(network: Any) -> nn.Linear | None:
    """The layer that turns last hidden states into logits; None where the model does more to either of them.

    Some scale or cap their logits (Gemma, Cohere, Granite). Whether this one does is found by asking it, with a head
    that answers what is known.
    """
    head = network.get_output_embeddings()
    if type(head) is not nn.Linear:
        return None
    tokens = torch.arange(2, device=head.weight.device)[None]
    known = torch.linspace(-100, 100, len(head.weight), device=head.weight.device).expand(1, 2, -1)
    asked: list[torch.Tensor] = []

    def answer(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        asked.append(inputs[0])
        return known

    hook = head.register_forward_hook(answer)
    was_training = network.training
    network.eval()
    try:
        logits = network(input_ids=tokens, use_cache=False).logits
        hidden = decoder(network)(input_ids=tokens, use_cache=False).last_hidden_state
    finally:
        hook.remove()
        network.train(was_training)
    is_plain = torch.equal(logits, known) and torch.allclose(asked[0], hidden, rtol=1e-3, atol=1e-3)
    return head if is_plain else None


@torch.no_grad()
def keeps_apart(network: Any) -> bool:
    """Whether a causal language model, told positions that begin anew, attends within packed sequences only."""
    device = next(network.parameters()).device
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6], [6, 5, 4, 4, 5, 6]], device=device)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]], device=device).expand(2, -1)
    was_training = network.training
    network.eval()
    try:
        hidden = decoder(network)(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
    except TypeError:  # its positions are its own business
        return False
    finally:
        network.train(was_training)
    return torch.allclose(hidden[0, 3:], hidden[1, 3:], atol=1e-5)


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    right: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of `hidden @ weight.T + bias` with the targets [n] int64, summed, 0-d; see `linear_loss`.

    `right`: as of `next_token_loss`.
    """

    def judge(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = targets[rows, None]
        loss, likeliest = _to_probabilities(logits, wanted)
        if right is not None:
            right.add_(likeliest)
        return loss, logits.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=logits.dtype))

    return linear_loss(hidden, weight, judge, bias=bias)


BlockLoss = Callable[[torch.Tensor, slice], tuple[torch.Tensor, torch.Tensor]]


def linear_loss(
    hidden: torch.Tensor, weight: torch.Tensor, judge: BlockLoss, *, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """A loss of the logits `hidden @ weight.T + bias`, summed over rows, 0-d, the logits made block by block.

    `hidden` [n, width], `weight` [vocabulary, width]. `judge(logits, rows)`: of a block of float32 logits, those of
    `rows` of hidden, the summed loss and its gradient; it may overwrite them. The gradient is found on the way, while a
    block's logits are there, so that they are neither kept nor made again (Hsu et al. 2024, Liger Kernel, section 3.2).
    """
    loss: torch.Tensor = _LinearLoss.apply(hidden, weight, bias, judge)  # type: ignore[no-untyped-call]
    return loss


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, judge: BlockLoss
    ) -> torch.Tensor:
        needs_hidden, needs_weight, needs_bias, _ = ctx.needs_input_grad
        loss = torch.zeros((), device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if needs_hidden else None
        weight_grad = torch.zeros_like(weight) if needs_weight else None
        bias_grad = torch.zeros_like(bias) if bias is not None and needs_bias else None
        size = max(1, (BLOCK_LOGITS_ON_GPU if hidden.is_cuda else BLOCK_LOGITS) // len(weight))
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            block = hidden[rows]
            found, grad = judge(functional.linear(block, weight, bias).float(), rows)
            loss += found
            if hidden_grad is not None:
                hidden_grad[rows] = grad.to(block.dtype) @ weight.to(block.dtype)
            if weight_grad is not None:
                weight_grad += grad.to(block.dtype).T @ block
            if bias_grad is not None:
                bias_grad += grad.sum(0)
        ctx.save_for_backward(hidden_grad, weight_grad, bias_grad)
        return loss

    @staticmethod
    def backward(ctx: Any, loss_grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias = (None if grad is None else grad * loss_grad for grad in ctx.saved_tensors)
        return hidden, weight, bias, None


def _to_probabilities(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The block's summed loss, and how many targets nothing was likelier than, which costs nothing beside it.

    The logits [block, vocabulary] are overwritten by their softmax.
    """
    largest = logits.amax(1, keepdim=True)
    wanted = logits.gather(1, targets)
    sums = logits.sub_(largest).exp_().sum(1, keepdim=True)
    logits.div_(sums)
    return (sums.log() + largest - wanted).sum(), (wanted == largest).sum()


def within_sequences(sequences: torch.Tensor, *, reach: int | None = None) -> torch.Tensor:
    """Which places an encoder may look at from each: bool [rows, 1, length, length], true inside a sequence.

    `sequences` [rows, length]; padding looks at padding. `reach`: how far apart they may be, none: at any distance.
    """
    mask = sequences[:, :, None] == sequences[:, None, :]
    if reach is not None:
        places = torch.arange(sequences.shape[1], device=sequences.device)
        mask &= (places[:, None] - places).abs() <= reach
    return mask[:, None]
