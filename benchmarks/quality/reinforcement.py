"""Reinforcement on a real language model: it learns by its reward alone."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.quality import Figure
from benchmarks.quality.fine_tuning_texts import apart, before_and_after, smollm2

STEPS, SUMS, ANSWERS = 12, 4, 8
SEED = 0


def measure() -> list[Figure]:
    """SmolLM2-135M-Instruct (GGUF, Q4_1) is to add two numbers, and to come to the point."""
    train, held_out = apart(sums(), held_out=40, train=128)
    spec = {
        "method": "fine_tuning",
        "task": "reinforcement",
        "strategy": "lora",
        "lora": {"rank": 16, "alpha": 32},
        "learning_rate": 5e-4,
        "schedule": "constant",
        "steps": STEPS,
        "batch_size": SUMS,
        "group_size": ANSWERS,
        "max_completion_tokens": 12,
        "precision": "bfloat16",
        "grader": grader(),
        "seed": SEED,
    }
    before, metrics = before_and_after(spec, train, held_out, smollm2())
    return [
        Figure(
            f"mean reward of {len(held_out)} held-out sums: SmolLM2-135M-Instruct, {STEPS} steps of {SUMS} sums, "
            f"{ANSWERS} answers to each",
            "higher",
            f"{before['valid_reward']:.3f} to {metrics['valid_reward']:.3f}",
            f"LoRA of rank 16, {metrics['trained_parameters'] / metrics['parameters']:.1%} of the weights; answers of "
            f"{before['valid_completion_length']:.1f} tokens before, of {metrics['valid_completion_length']:.1f} after",
        )
    ]


def grader() -> dict[str, Any]:
    """Mostly whether the sum is in the answer, within its twelve tokens: it never is a part of the question."""
    fields = {"input": "{{ sample.output_text }}", "reference": "{{ item.reference_answer }}"}
    return {
        "type": "multi",
        "name": "reward",
        "graders": {
            "right": {"type": "string_check", "name": "right", "operation": "like", **fields},
            "near": {"type": "text_similarity", "name": "near", "evaluation_metric": "fuzzy_match", **fields},
        },
        "calculate_output": "0.8 * right + 0.2 * near",
    }


def sums() -> list[Any]:
    """What two numbers from 2 to 15 add up to, as prompts with their answer beside them."""
    told = {"role": "system", "content": "Answer with the number alone."}
    return [
        {
            "messages": [told, {"role": "user", "content": f"What is {one} + {other}?"}],
            "reference_answer": str(one + other),
        }
        for one in range(2, 16)
        for other in range(2, 16)
    ]


if __name__ == "__main__":
    for figure in measure():
        sys.stdout.write(f"{figure}\n")
