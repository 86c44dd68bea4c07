"""How far a reconstruction is from its example, and what else autoencoders descend: plain functions, with papers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch.nn import functional

COLLAPSED = 0.1  # nats in a whole code
BARELY = 0.95  # of the variance left: the codes say nothing
DENSE = 3.0  # times the wanted activation


def cross_entropy(logits: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood of Bernoulli pixels, summed over an image, [batch], in nats."""
    return functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none").flatten(1).sum(1)


def squared_error(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared differences summed over an example's features, [batch]."""
    return (reconstruction - target).square().flatten(1).sum(1)


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """From N(mean, variance) to N(0, 1), summed over a code, [batch], in nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def sparsity_divergence(codes: torch.Tensor, target: float) -> torch.Tensor:
    """From a coin that falls on 1 with probability `target` to each unit's mean over the batch, summed over units, 0-d.

    `codes` [batch, code_size] in (0, 1). In nats (Ng 2011, CS294A lecture notes, Sparse autoencoder).
    """
    activation = codes.mean(0).clamp(1e-6, 1 - 1e-6)
    on, off = (target / activation).log(), ((1 - target) / (1 - activation)).log()
    return (target * on + (1 - target) * off).sum()


def patch_loss(predicted: torch.Tensor, wanted: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the hidden patches, [batch] (He et al. 2022, section 3).

    `predicted` and `wanted` [batch, patches, numbers]; `hidden` [batch, patches] is 1 where the encoder saw nothing.
    """
    return ((predicted - wanted).square().mean(2) * hidden).sum(1) / hidden.sum(1)


def patch_moments(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each patch, [batch, patches, 1], the latter never 0 (He et al. 2022, section 4)."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def what_failed(
    metrics: Mapping[str, float], *, variance: float, sparsity_target: float | None = None
) -> Iterator[str]:
    """What a finished autoencoder's `train_` metrics show to have gone wrong, and the cure.

    `variance`: the squared error that the mean of the data would leave.
    """
    if metrics["train_squared_error"] > BARELY * variance:
        yield (
            "The reconstructions are hardly better than the mean of the data: train for more epochs, or with another "
            "learning_rate"
        )
    if metrics.get("train_kl_divergence", COLLAPSED) < COLLAPSED:
        yield "The codes are ignored: each has the same distribution, whatever the example. Lower beta"
    activation = metrics.get("train_activation")
    if activation is not None and sparsity_target is not None and activation > DENSE * sparsity_target:
        yield (
            f"The codes are not sparse: the mean activation is {activation:.3f}, and {sparsity_target} was wanted. "
            "Raise sparsity_weight, or train for longer"
        )
