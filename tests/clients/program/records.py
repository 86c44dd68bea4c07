"""What the jobs are trained on: lines as the hosted API's guides have them, a few of each kind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def _lines(values: Iterable[Any]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def _asked(number: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "answer with a number"},
        {"role": "user", "content": f"what follows {number}?"},
    ]


def _conversation(number: int) -> dict[str, Any]:
    return {"messages": [*_asked(number), {"role": "assistant", "content": str(number + 1)}]}


def _preference(number: int) -> dict[str, Any]:
    return {
        "input": {"messages": _asked(number)},
        "preferred_output": [{"role": "assistant", "content": str(number + 1)}],
        "non_preferred_output": [{"role": "assistant", "content": "no"}],
    }


CONVERSATIONS = _lines(_conversation(number) for number in range(12))
HELD_OUT = _lines(_conversation(number) for number in range(20, 24))
PREFERENCES = _lines(_preference(number) for number in range(12))
PROMPTS = _lines({"messages": _asked(number), "next": str(number + 1)} for number in range(12))
WITHOUT_ANSWERS = _lines({"messages": _asked(number)} for number in range(12))
