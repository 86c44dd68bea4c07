"""The gradient of a loss over a whole batch at representations that were made part by part, without a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.training.parts import to_device


class Cached(NamedTuple):
    """The loss of a whole batch, and how it changes with what it is taken of; both detached."""

    loss: torch.Tensor  # 0-d
    gradient: torch.Tensor  # [examples, ...] of the loss with respect to the representations


def cache_gradient(
    network: nn.Module,
    parts: Sequence[Any],
    *,
    represent: Callable[[Any], torch.Tensor],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    scale: float = 1.0,
) -> Cached:
    """The first of GradCache's two passes (Gao et al. 2021, section 3); the second descends represent(part) * gradient.

    What `loss_of` itself learns has its gradient from here, times `scale`. Random states and the running statistics of
    batch normalisation are left as they were before `represent`, so that the second pass makes the very same
    representations, and each part is counted once.
    """
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices), _uncounted(network):
        made = torch.cat([represent(to_device(part, device)) for part in parts])
    made.requires_grad_()
    loss = loss_of(made)
    (loss * scale).backward()
    assert made.grad is not None  # noqa: S101 - the loss is taken of it
    return Cached(loss.detach(), made.grad / scale)


@contextmanager
def _uncounted(network: nn.Module) -> Iterator[None]:
    """Within it, batch normalisation keeps its running statistics as they are."""
    counting = [each for each in network.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    for module in counting:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in counting:
            module.track_running_stats = True
