"""What `auto` stands for: hyperparameters that follow from how much there is to learn from.

- n_epochs: 3, of preferences and with a grader 1; more where that would show fewer than 100 examples (at most 25),
  fewer where it would show more than 25,000: the rule of OpenAI's cookbook, "Data preparation and analysis for chat
  model fine-tuning".
- batch_size: 8, or 0.2 % of the examples where that is more (as OpenAI told of its older models), up to 64; less where
  that would be fewer than 50 steps, or more than 32,768 tokens a step. A power of two.
- learning_rate_multiplier: the square root of batch_size / 8, since the usual rates are those of batches of 8
  (Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms"), times (4096 / width) ** 0.78,
  since they are those of models of 7B, and narrower ones take larger steps (the law that Thinking Machines fitted to
  Llamas for "LoRA Without Regret", 2025); from half to five times. Where few conversations are gone through more often
  than 3 times, as many times smaller: 10 of them, 10 times at the usual rate, came to a held-out loss of 1.634, the
  base's being 1.365, and at 0.3 of it to 1.284. Of preferences, where there are fewer than 500
  steps, as many times larger as they are fewer (up to ten times): 500 steps of the usual rate go as far as the 1,900
  of 5e-6 that the alignment handbook's zephyr-7b-dpo-qlora takes, if its 4 pairs a device are 32 a step. Without this
  51 pairs came to a held-out loss of 0.681, with it to 0.634, at best to 0.616 (docs/methods/automatic.md).
- beta: 0.1 of preferences (Rafailov et al. 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from api.fine_tuning.requests import Hyperparameters
from core.methods.fine_tuning import BATCH_OF_WRITING
from core.networks.pretrained import MAX_TOKENS

EPOCHS = {"supervised": 3, "dpo": 1, "reinforcement": 1}
FEW_EXAMPLES, MANY_EXAMPLES, MOST_EPOCHS = 100, 25_000, 25
PART_OF_EXAMPLES, LARGEST_BATCH = 0.002, 64
FEW_STEPS, MANY_TOKENS = 50, 32_768
FEW_ROWS = 2  # in fewer, a batch is not about as many examples as were asked for
USUAL_WIDTH, WIDTH_POWER, FACTORS = 4096, 0.78, (0.5, 5.0)
USUAL_STEPS = {"dpo": 500}
OTHERS = {"beta": 0.1, "compute_multiplier": 1.0, "eval_samples": 1}


@dataclass(frozen=True)
class DataSize:
    """How much there is to learn from, and for whom.

    Examples, their tokens if they are counted, the tokens of a packed row, and the base's width if it is known.
    """

    examples: int
    tokens: int | None = None
    row_tokens: int = MAX_TOKENS
    width: int | None = None


def resolved(settings: Hyperparameters, method: str, size: DataSize) -> dict[str, Any]:
    """The hyperparameters with a number for each `auto`, but for eval_interval, which has none."""
    given = {name: value for name, value in settings if value is not None and value != "auto"}
    n_epochs = given.get("n_epochs") or epochs_for(size.examples, usual=EPOCHS[method])
    batch_size = given.get("batch_size") or batch_size_for(size, n_epochs)
    pace = pace_for(method, steps=size.examples * n_epochs / batch_size)
    if "n_epochs" not in given and method == "supervised":
        pace *= min(1.0, EPOCHS[method] / n_epochs)
    found = {
        "n_epochs": n_epochs,
        "batch_size": batch_size,
        "learning_rate_multiplier": multiplier_for(batch_size, size.width, pace=pace),
        **{name: value for name, value in OTHERS.items() if name in type(settings).model_fields},
    }
    return {**found, **given}


def epochs_for(examples: int, *, usual: int) -> int:
    """How often a data set of this size is gone through."""
    if examples * usual < FEW_EXAMPLES:
        return min(MOST_EPOCHS, FEW_EXAMPLES // examples)
    if examples * usual > MANY_EXAMPLES:
        return max(1, MANY_EXAMPLES // examples)
    return usual


def batch_size_for(size: DataSize, n_epochs: int) -> int:
    """How many examples a step learns from."""
    most = [max(BATCH_OF_WRITING, PART_OF_EXAMPLES * size.examples), size.examples, LARGEST_BATCH]
    most.append(size.examples * n_epochs / FEW_STEPS)
    if size.tokens is not None:
        most.append(MANY_TOKENS * size.examples / max(1, size.tokens))
    return int(2 ** max(0, math.floor(math.log2(max(1, min(most))))))


def pace_for(method: str, *, steps: float) -> float:
    """How many times larger steps are, where there are fewer than the usual rate is for."""
    return max(1.0, USUAL_STEPS.get(method, 0) / max(FEW_STEPS, steps))


def multiplier_for(batch_size: int, width: int | None, *, pace: float) -> float:
    """What the usual learning rate is multiplied by, to two digits."""
    smallest, largest = FACTORS
    factor = 1.0 if width is None else min(largest, max(smallest, (USUAL_WIDTH / width) ** WIDTH_POWER))
    return float(f"{math.sqrt(batch_size / BATCH_OF_WRITING) * factor * pace:.2g}")


def packed_rows(batch_size: int, size: DataSize) -> int | None:
    """How many packed rows hold as many tokens as a batch of examples; None where the tokens are not counted."""
    if size.tokens is None:
        return None
    return round(batch_size * size.tokens / size.examples / size.row_tokens)
