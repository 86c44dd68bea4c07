"""Group relative policy optimization: what completions gain over others of their prompt, and the loss of their tokens.

GRPO (Shao et al. 2024, DeepSeekMath, section 4.1) with two later corrections. Every token of a batch counts alike,
where the paper first takes the mean of each completion, by which the tokens of long wrong ones weigh less: so DAPO (Yu
et al. 2025, section 3.3), and with another constant Dr. GRPO (Liu et al. 2025). And the ratio is clipped at 1.28 rather
than 1.2 from above, which lets unlikely tokens grow (DAPO, section 3.1). Rewards are divided by the deviation of their
group, as in the paper: Dr. GRPO leaves that out, but then the size of a step would depend on the scale of the grader.
"""

from __future__ import annotations

import torch

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
SMALLEST_DEVIATION = 1e-4


def group_advantages(rewards: torch.Tensor) -> torch.Tensor:
    """How much better each completion is than those of its prompt, in deviations: [prompts, group] as `rewards`.

    The deviation is that of a sample (over n - 1); where all are alike, there is nothing to learn, and it is 0.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + SMALLEST_DEVIATION)


def policy_losses(
    new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, *, kl: torch.Tensor | None, beta: float
) -> torch.Tensor:
    """Of each token, [tokens]: -min(ratio A, clip(ratio) A) + beta KL, equation 3 of Shao et al. 2024.

    `new`, `old` [tokens]: log-probabilities by the policy that learns and by the one that wrote. `kl`: of `kl_to_base`.
    """
    ratio = (new - old).exp()
    clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    return losses if kl is None else losses + beta * kl


def kl_to_base(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Of each token, [tokens], an estimate of KL(policy || base) that is never negative: equation 4 (Schulman 2020)."""
    return (reference - new).exp() - (reference - new) - 1
