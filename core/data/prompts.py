"""Prompts that a model is to complete, each with what its grader knows of it: conversations without their answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.chats import check_conversation
from core.data.conversations import Message, plain_messages
from core.data.json_lines import read_objects
from core.data.opening import open_source
from core.data.problems import Problems
from core.data.sources import ChatSource, wrong_kind


@dataclass(frozen=True)
class GradedPrompt:
    """Messages that an assistant is to answer; `item` is the whole line, for the grader."""

    where: str
    messages: Sequence[Message]
    item: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]] | None = None


def read_prompts(path: Path, *, check: Callable[[Mapping[str, Any]], None]) -> list[GradedPrompt]:
    """All prompts; raises InvalidData by line, also for what `check(item)` raises ValueError for."""
    problems = Problems()
    found = list(prompts_in(path, problems, check=check))
    problems.check()
    return found


def prompts_in(path: Path, problems: Problems, *, check: Callable[[Mapping[str, Any]], None]) -> Iterator[GradedPrompt]:
    """One after another; lines that hold none become problems. Raises InvalidData for data of another kind."""
    source = open_source(path)
    if not isinstance(source, ChatSource) or source.is_preference:
        raise wrong_kind(source, "prompts: JSON Lines with messages, and what the grader needs beside them")
    for where, value in read_objects(path, problems):
        try:
            check_conversation(value)
            _check_is_open(value["messages"])
            check(value)
        except ValueError as error:
            problems.add(where, str(error))
        else:
            yield GradedPrompt(where, plain_messages(value["messages"]), value, value.get("tools"))


def _check_is_open(messages: Sequence[Message]) -> None:
    if messages[-1]["role"] == "assistant":
        raise ValueError(
            "the last message is the assistant's: a prompt ends with a user's turn, and what the answer should be is a "
            "field beside 'messages', such as 'reference_answer'"
        )
