"""Reinforcement (GRPO) beside TRL's GRPOTrainer: the same base, prompts, grader and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.language_models import prepared, texts_of
from benchmarks.timed import arguments, train_by_trl, train_ours

PROMPTS, GROUP, COMPLETION = 4, 8, 16  # prompts a step, completions of each, tokens of one
BETA = 0.04
WORDS, COUNT = 8, 512  # of a prompt, and prompts
REWARDED = "the man and the woman of the house"
GRADER = {
    "type": "text_similarity",
    "name": "near",
    "input": "{{ sample.output_text }}",
    "reference": REWARDED,
    "evaluation_metric": "fuzzy_match",
}
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "precision": "float32",
}


def conversations() -> list[dict[str, Any]]:
    """How documents of books begin, as prompts."""
    texts = texts_of(prepared("causal_language_model") / "learn.jsonl")[:COUNT]
    return [{"messages": [{"role": "user", "content": " ".join(text.split()[:WORDS])}]} for text in texts]


def ours(steps: int) -> Reading:
    """As a job."""
    folder = prepared("causal_language_model")
    dataset = folder / "prompts.jsonl"
    dataset.write_text("".join(json.dumps(each) + "\n" for each in conversations()), encoding="utf-8")
    task = {
        "method": "fine_tuning",
        "task": "reinforcement",
        "steps": steps,
        "samples": 0,
        "grader": GRADER,
        "batch_size": PROMPTS,
        "group_size": GROUP,
        "max_completion_tokens": COMPLETION,
        "beta": BETA,
    }
    watch, artifacts = train_ours({**task, **SETTINGS}, dataset=dataset, base=folder / "base")
    return watch.reading(steps, reward=_reward(artifacts))


def trl_grpo(steps: int) -> Reading:
    """TRL's GRPOTrainer; prompts are given as the same texts, and graded by the same grader."""
    base = prepared("causal_language_model") / "base"
    grpo = {
        "num_generations": GROUP,
        "max_completion_length": COMPLETION,
        "beta": BETA,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "loss_type": "dapo",
        "scale_rewards": "group",
        "temperature": 1.0,
        "disable_dropout": True,
    }
    tokenizer = _tokenizer(base)
    watch, artifacts = train_by_trl(
        "GRPO",
        arguments(SETTINGS, steps=steps, batch_size=PROMPTS * GROUP, **grpo),
        base=base,
        data=[{"prompt": _asked(tokenizer, each)} for each in conversations()],
        tokenizer=tokenizer,
        reward_funcs=lambda completions, **_: [_graded(text) for text in completions],
    )
    return watch.reading(steps, reward=_reward(artifacts))


def _tokenizer(folder: Path) -> Any:
    import transformers

    from core.networks.chat_template import give_template

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    give_template(tokenizer)
    return tokenizer


def _asked(tokenizer: Any, conversation: dict[str, Any]) -> str:
    text: str = tokenizer.apply_chat_template(conversation["messages"], tokenize=False, add_generation_prompt=True)
    return text


def _graded(text: str) -> float:
    from pydantic import TypeAdapter

    from core.graders import Grader, grade

    return grade(TypeAdapter(Grader).validate_python(GRADER), {}, text).reward


def _reward(artifacts: Path) -> float:
    """The mean reward of completions of 64 of the prompts, drawn from what was learned."""
    import torch
    import transformers

    from core.networks.generation import complete

    network = transformers.AutoModelForCausalLM.from_pretrained(artifacts).eval()
    tokenizer = _tokenizer(artifacts)
    prompts = [tokenizer.encode(_asked(tokenizer, each), add_special_tokens=False) for each in conversations()[:64]]
    torch.manual_seed(0)
    written = complete(
        network,
        prompts,
        count=4,
        max_new_tokens=COMPLETION,
        ends=[tokenizer.eos_token_id],
        pad_token=tokenizer.pad_token_id,
        temperature=1.0,
    )
    rewards = [_graded(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in written]
    return sum(rewards) / len(rewards)


BENCHMARKS = [
    Benchmark(
        name="reinforcement",
        what="A GPT-2 of 4 layers, 128 wide, learns what a grader rewards: 4 prompts a step, 8 completions of 16 "
        "tokens each, on one thread.",
        unit="steps/CPU s",
        more_is_better=True,
        goal=Goal("ahead at an equal reward", ratio=1.0),
        ours=Side("Weightworks", ours, ("transformers",)),
        peers=[Side("GRPOTrainer", trl_grpo, ("trl", "transformers", "accelerate", "datasets"), is_peer=True)],
        size="steps",
        sizes=[10, 40],
        full_sizes=[60, 300],
    ),
]
