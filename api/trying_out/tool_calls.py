"""Finds an answer's calls of tools in its text, while it is written.

Models write calls as their chat templates show them: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, as
Hermes and Qwen do, or one object that is the whole answer, `{"name": ..., "parameters": {...}}`, as Llama 3. What calls
no tool that was offered is text. (The parsers of transformers raise for what is no JSON, and know no Llama.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.serving.writing import overlap

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class Call:
    """A call of a tool; `arguments`: an object as JSON."""

    name: str
    arguments: str


Found = list[str | Call]


class CallReader:
    """Takes a text in pieces, and gives what is certain of it: text and calls; without tools all of it is text."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        functions = [tool.get("function") for tool in tools]
        self._names = {one["name"] for one in functions if isinstance(one, dict) and isinstance(one.get("name"), str)}
        self._held = ""
        self._has_text = False
        self.calls = 0

    def add(self, text: str) -> Found:
        """What can be given now."""
        self._held += text
        return self._given(is_last=False)

    def finish(self) -> Found:
        """What was held back."""
        return self._given(is_last=True)

    def _given(self, *, is_last: bool) -> Found:
        found: Found = []
        while self._held and (part := self._next(is_last=is_last)) is not None:
            if isinstance(part, Call):
                self.calls += 1
            elif part.strip():
                self._has_text = True
            found.append(part)
        return found

    def _next(self, *, is_last: bool) -> str | Call | None:
        """Take the next part off what is held; None where more must come first, or nothing is left to say."""
        if self._may_be_object():
            return self._take(len(self._held), call=self._call(self._held)) if is_last else None
        place = self._held.find(OPEN) if self._names else -1
        if place < 0:
            return self._next_text(is_last=is_last)
        if text := self._held[:place].rstrip():
            return self._take(len(text))
        end = self._held.find(CLOSE, place)
        if end < 0 and not is_last:
            return None
        inside = self._held[place + len(OPEN) : end if end >= 0 else len(self._held)]
        return self._take(end + len(CLOSE) if end >= 0 else len(self._held), call=self._call(inside))

    def _may_be_object(self) -> bool:
        return bool(self._names) and not self._has_text and not self.calls and self._held.lstrip().startswith("{")

    def _next_text(self, *, is_last: bool) -> str | Call | None:
        """Text that no call begins in, without the space before what may be one, or behind the last."""
        text = self._held
        if self._names and not is_last:
            text = text[: len(text) - overlap(text, OPEN)].rstrip()
        elif self.calls:
            text = text.rstrip()
        return self._take(len(text)) if text else None

    def _take(self, count: int, *, call: Call | None = None) -> str | Call:
        text, self._held = self._held[:count], self._held[count:]
        return call or text

    def _call(self, text: str) -> Call | None:
        try:
            found = json.loads(text)
            name, arguments = found["name"], found["arguments"] if "arguments" in found else found["parameters"]
            is_call = name in self._names and isinstance(arguments, dict)
            return Call(name, json.dumps(arguments, allow_nan=False)) if is_call else None
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


def read_calls(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """The text of a whole answer, and its calls."""
    reader = CallReader(tools)
    parts = [*reader.add(text), *reader.finish()]
    said = "".join(part for part in parts if isinstance(part, str))
    return said, [part for part in parts if isinstance(part, Call)]
