"""Optimizers, learning-rate schedules and early stopping, as the specs ask for them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from core.spec import TrainingSpec
from core.training.run import Stateful


def adamw(parameters: Iterable[Any], spec: TrainingSpec, **options: Any) -> AdamW:
    """AdamW with the spec's learning rate and weight decay, its update fused into one kernel."""
    return AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True, **options)


def schedule(optimizer: Optimizer, spec: TrainingSpec, *, total: int) -> LambdaLR:
    """The learning rate over `total` steps: a linear rise over `warmup`, then constant, linear or cosine to zero."""
    warmup = round(spec.warmup * total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if spec.schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return 1 - progress if spec.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def gradient_scaler(spec: TrainingSpec, device: torch.device) -> GradScaler:
    """Keeps float16's small gradients from vanishing: `scaler.scale(loss).backward()`; does nothing otherwise."""
    return GradScaler(device.type, enabled=spec.precision == "float16")


def update(
    optimizer: Optimizer, learning_rate: LambdaLR, spec: TrainingSpec, *, scaler: GradScaler | None = None
) -> None:
    """One optimizer step after backward(): clip as asked, step, advance the schedule, clear the gradients.

    With an enabled `scaler`, a step whose gradients overflowed is left out, and the schedule waits.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    if spec.gradient_clip is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, spec.gradient_clip)
    if scaler is not None and scaler.is_enabled():
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:
            learning_rate.step()
    else:
        optimizer.step()
        learning_rate.step()
    optimizer.zero_grad(set_to_none=True)


class EarlyStopping:
    """Watches a validation loss, keeps the best weights, and says when to stop (Prechelt 1998).

    Track it in the run, so that a checkpoint holds it.
    """

    def __init__(self, network: Stateful, *, patience: int | None) -> None:
        self.network = network
        self.patience = patience
        self.best = math.inf
        self.bad_epochs = 0
        self.best_weights: Mapping[str, torch.Tensor] | None = None

    def should_stop(self, loss: float) -> bool:
        """Note an epoch's validation loss; whether `patience` epochs have passed without a better one."""
        if self.patience is None:
            return False
        if loss < self.best:
            self.best, self.bad_epochs = loss, 0
            self.best_weights = copy.deepcopy(self.network.state_dict())
        else:
            self.bad_epochs += 1
        return self.bad_epochs >= self.patience

    def restore_best(self) -> None:
        """Put the best weights back into the network, if any epoch was noted."""
        if self.best_weights is not None:
            self.network.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        """Its memory."""
        return {"best": self.best, "bad_epochs": self.bad_epochs, "best_weights": self.best_weights}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best, self.bad_epochs = state_dict["best"], state_dict["bad_epochs"]
        self.best_weights = state_dict["best_weights"]
