"""Conversations and preference pairs in memory, all in one form, whoever's JSON Lines they came in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.chats import check_conversation, check_preference
from core.data.json_lines import is_too_deep, read_objects
from core.data.opening import open_source
from core.data.problems import Problems
from core.data.sources import ChatSource, wrong_kind

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Messages in turn; `content` of each is one text. An assistant's message of `weight` 0 is not to be learned."""

    where: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Preference:
    """What was said, a better answer and a worse one."""

    where: str
    prompt: Sequence[Message]
    chosen: Sequence[Message]
    rejected: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None = None


def read_conversations(path: Path) -> list[Conversation]:
    """All conversations; raises InvalidData by line."""
    problems = Problems()
    found = list(conversations_in(path, problems))
    problems.check()
    return found


def read_preferences(path: Path) -> list[Preference]:
    """All pairs of answers; raises InvalidData by line."""
    problems = Problems()
    found = list(preferences_in(path, problems))
    problems.check()
    return found


def conversations_in(path: Path, problems: Problems) -> Iterator[Conversation]:
    """One after another; lines that hold none become problems. Raises InvalidData for data of another kind."""
    source = open_source(path)
    if not isinstance(source, ChatSource) or source.is_preference:
        raise wrong_kind(source, "conversations: JSON Lines with messages")
    for where, value in read_objects(path, problems):
        try:
            check_conversation(value)
        except ValueError as error:
            problems.add(where, str(error))
        else:
            yield Conversation(where, plain_messages(value["messages"]), value.get("tools"))


def preferences_in(path: Path, problems: Problems) -> Iterator[Preference]:
    """As `conversations_in`, pairs of answers."""
    source = open_source(path)
    if not isinstance(source, ChatSource) or not source.is_preference:
        raise wrong_kind(source, "preferences: JSON Lines with prompt, chosen and rejected")
    for where, value in read_objects(path, problems):
        try:
            check_preference(value)
        except ValueError as error:
            problems.add(where, str(error))
        else:
            yield _preference(where, value)


def plain_messages(messages: Sequence[Message]) -> list[Message]:
    """The messages with texts for contents, and their tools' arguments as objects."""
    return [_plain(message) for message in messages]


def _preference(where: str, value: Mapping[str, Any]) -> Preference:
    if "preferred_output" in value:
        given, better, worse = value["input"], value["preferred_output"], value["non_preferred_output"]
        prompt, tools = given["messages"], given.get("tools")
    else:
        prompt, better, worse, tools = value["prompt"], value["chosen"], value["rejected"], value.get("tools")
    return Preference(
        where,
        _messages(prompt, role="user"),
        _messages(better, role="assistant"),
        _messages(worse, role="assistant"),
        tools,
    )


def _messages(given: str | Sequence[Message], *, role: str) -> list[Message]:
    """Messages whose content is text; a bare text is a message of `role`."""
    return [{"role": role, "content": given}] if isinstance(given, str) else plain_messages(given)


def _plain(message: Message) -> Message:
    """The message with the text of its parts, and its tools' arguments as objects, which chat templates ask for."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part[part["type"]] for part in content)
    plain: dict[str, Any] = {**message, "content": content or ""}
    if message.get("tool_calls"):
        plain["tool_calls"] = [_with_objects(call) for call in message["tool_calls"]]
    return plain


def _with_objects(call: Any) -> Any:
    try:
        arguments = json.loads(call["function"]["arguments"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return call
    return call if is_too_deep(arguments) else {**call, "function": {**call["function"], "arguments": arguments}}
