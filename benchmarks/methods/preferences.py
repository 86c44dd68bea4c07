"""Direct preference optimization beside TRL's DPOTrainer: the same base, pairs, chat template and steps."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.data import CACHE
from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.language_models import prepared
from benchmarks.timed import Stopwatch, arguments, train_by_trl, train_ours

SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "schedule": "linear",
    "warmup": 0.1,
    "weight_decay": 0.0,
    "precision": "float32",
    "beta": 0.1,
}
PAIRS, LENGTH = 4, 256  # in a step; tokens of a conversation at most
CHARACTERS = 400  # of a prompt at most, and of its answers, which are cut there
HELD_OUT_EVERY = 5
TEMPLATE = (
    "{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def pairs() -> tuple[Path, Path]:
    """Pairs of answers to learn from and to judge by, as TRL writes them, each side a message."""
    from benchmarks.quality.fine_tuning_texts import llamafactory

    folder = CACHE / "preferences-benchmark"
    parts = folder / "learn.jsonl", folder / "held_out.jsonl"
    if not parts[1].exists():
        folder.mkdir(parents=True, exist_ok=True)
        found: list[list[str]] = [[], []]
        for place, each in enumerate(json.loads(llamafactory("dpo_en_demo.json"))):
            asked = each["conversations"][-1]["value"][-CHARACTERS:]
            pair = {"prompt": [{"role": "user", "content": asked}]}
            for side in ("chosen", "rejected"):
                pair[side] = [{"role": "assistant", "content": each[side]["value"][:CHARACTERS].strip()}]
            if pair["chosen"] != pair["rejected"] and max(_lengths(pair)) <= LENGTH:
                found[place % HELD_OUT_EVERY == 0].append(json.dumps(pair) + "\n")
        for part, lines in zip(parts, found, strict=True):
            part.write_text("".join(lines), encoding="utf-8")
    return parts


def base() -> Path:
    """A Llama of 4 layers, 128 wide, that has learned nothing, with a chat template."""
    import torch
    import transformers

    folder = CACHE / "preferences-benchmark" / "base"
    if not (folder / "model.safetensors").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(prepared("causal_language_model") / "base")
        tokenizer.chat_template, tokenizer.model_max_length = TEMPLATE, LENGTH
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def ours(steps: int) -> Reading:
    """As a job: task preference."""
    task = {"method": "fine_tuning", "task": "preference", "steps": steps, "batch_size": PAIRS}
    watch, artifacts = train_ours({**task, **SETTINGS}, dataset=pairs()[0], base=base())
    return _reading(steps, watch, artifacts)


def trl(steps: int) -> Reading:
    """TRL's DPOTrainer, which finds the base's log-probabilities beforehand, as ours does."""
    dpo = {"beta": SETTINGS["beta"], "max_length": LENGTH, "precompute_ref_log_probs": True}
    watch, artifacts = train_by_trl(
        "DPO",
        arguments(SETTINGS, steps=steps, batch_size=PAIRS, **dpo),
        base=base(),
        data=[json.loads(line) for line in pairs()[0].read_text().splitlines()],
        tokenizer=_tokenizer(),
    )
    return _reading(steps, watch, artifacts)


def _reading(steps: int, watch: Stopwatch, artifacts: Path) -> Reading:
    """Tokens, both conversations', a CPU second; loss and accuracy of the pairs that are held out."""
    lengths = [sum(_lengths(json.loads(line))) for line in pairs()[0].read_text().splitlines()]
    return watch.reading(steps * PAIRS * sum(lengths) / len(lengths), **_judged(artifacts))


def _lengths(pair: dict[str, Any]) -> list[int]:
    return [len(_tokens(pair, side)[0]) for side in ("chosen", "rejected")]


def _tokens(pair: dict[str, Any], side: str) -> tuple[list[int], int]:
    """The whole conversation, and how many of its tokens are the prompt's."""
    template = _tokenizer().apply_chat_template
    prompt = template(pair["prompt"], add_generation_prompt=True, return_dict=False)
    return template([*pair["prompt"], *pair[side]], return_dict=False), len(prompt)


@cache
def _tokenizer() -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(base())


def _judged(artifacts: Path) -> dict[str, float]:
    """By transformers alone: the loss of equation 7 of Rafailov et al. 2023, and how often the margin is positive."""
    import torch
    import transformers

    held_out = [json.loads(line) for line in pairs()[1].read_text().splitlines()]
    margins = []
    networks = [transformers.AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (artifacts, base())]
    for pair in held_out:
        gains = []
        for side in ("chosen", "rejected"):
            tokens, start = _tokens(pair, side)
            now, before = (_log_probability(network, tokens, start) for network in networks)
            gains.append(now - before)
        margins.append(SETTINGS["beta"] * (gains[0] - gains[1]))
    found = torch.tensor(margins)
    loss = -torch.nn.functional.logsigmoid(found).mean()
    return {"held_out_loss": float(loss), "held_out_accuracy": float((found > 0).float().mean())}


def _log_probability(network: Any, tokens: list[int], start: int) -> float:
    import torch

    with torch.no_grad():
        logits = network(torch.tensor([tokens])).logits[0, start - 1 : -1].log_softmax(-1)
    return float(logits.gather(1, torch.tensor(tokens[start:])[:, None]).sum())


BENCHMARKS = [
    Benchmark(
        name="fine-tuning-preferences",
        what="A Llama of 4 layers, 128 wide, learns from pairs of answers by DPO, 4 pairs a step, on one thread.",
        unit="tokens/CPU s",
        more_is_better=True,
        goal=Goal(
            "ahead, at losses like those of other seeds (0.64 to 0.79 on both sides: the base is random)", ratio=1.0
        ),
        ours=Side("Weightworks", ours, ("transformers",)),
        peers=[Side("DPOTrainer", trl, ("trl", "transformers", "accelerate", "datasets"), is_peer=True)],
        size="steps",
        sizes=[10, 40],
        full_sizes=[40, 150],
    ),
]
