"""What a policy wrote, and what that was worth: prompts, their completions, and both as rows to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from core.data.packing import PackedBatch, PackedRows
from core.data.prompts import GradedPrompt
from core.graders import Grade


class Prompt(NamedTuple):
    """What the model is given, and the line that its grader judges the answer by."""

    tokens: Sequence[int]
    source: GradedPrompt


class Completion(NamedTuple):
    """What the model wrote, as tokens up to and with the end of its turn, and what that is worth."""

    prompt: Prompt
    tokens: Sequence[int]
    text: str
    grade: Grade


class Rollout(NamedTuple):
    """Completions behind their prompts, a row each, and what their tokens are to be learned by.

    `old`, `reference` [rows, longest]: the log-probability of each target by the policy that wrote it and by the base;
    `old` is None where the policy takes one step alone, `reference` where beta is 0.
    """

    packed: PackedBatch
    advantages: torch.Tensor  # [rows] float32
    old: torch.Tensor | None
    reference: torch.Tensor | None


def pack_completions(written: Sequence[Completion], *, pad_token: int) -> PackedBatch:
    """Completions behind their prompts, a row each; their tokens are the targets."""
    rows = [(*each.prompt.tokens, *each.tokens) for each in written]
    is_written = [
        place >= len(each.prompt.tokens) for each, row in zip(written, rows, strict=True) for place in range(len(row))
    ]
    tokens, sizes = torch.tensor([token for row in rows for token in row]), torch.tensor([len(row) for row in rows])
    starts, learned = sizes.cumsum(0) - sizes, torch.tensor(is_written)
    packed = PackedRows(tokens, sizes, starts=starts, pad_token=pad_token, learned=learned)
    return packed[torch.arange(len(rows))]


def figures_of(
    written: Sequence[Completion], rewards: torch.Tensor, *, ends: Sequence[int]
) -> Mapping[str, torch.Tensor]:
    """What a step logs of its completions; `rewards` [prompts, group], `ends`: the tokens that end a turn."""
    deviations = rewards.std(1)
    return {
        "reward_std": deviations.mean(),
        "without_signal": (deviations == 0).float().mean(),
        "completion_length": torch.tensor([float(len(each.tokens)) for each in written]).mean(),
        "truncated": torch.tensor([float(each.tokens[-1] not in ends) for each in written]).mean(),
        "not_graded": torch.tensor([float(each.grade.failure is not None) for each in written]).mean(),
    }
