"""The example's data: instructions of LLaMA-Factory, as the JSON Lines that the hosted API takes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.fine_tuning_texts import instructions

SEED = 0
HELD_OUT = 6
OTHERS = 24  # questions about other things, so that the model does not speak of itself alone


def write_conversations(folder: Path) -> dict[str, int]:
    """In English: who the assistant is, and what else it is asked; some are held out. How many of each."""
    drawn = random.Random(SEED)
    identity = _english(instructions("identity"))
    conversations = [*identity, *drawn.sample(_english(instructions("alpaca_en_demo")), OTHERS)]
    drawn.shuffle(conversations)
    parts = {"training.jsonl": conversations[HELD_OUT:], "validation.jsonl": conversations[:HELD_OUT]}
    return {name: _write(folder / name, part) for name, part in parts.items()}


def _english(conversations: Sequence[Any]) -> list[Any]:
    """Those in ASCII, each question once."""
    plain = (each for each in conversations if json.dumps(each, ensure_ascii=False).isascii())
    return list({each["messages"][0]["content"]: each for each in plain}.values())


def _write(path: Path, conversations: Sequence[Any]) -> int:
    path.write_text("".join(json.dumps(each) + "\n" for each in conversations), encoding="utf-8")
    return len(conversations)
