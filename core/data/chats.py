"""Conversations and preference pairs, in the JSON Lines that OpenAI's fine-tuning takes and in TRL's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_OPENAI_PAIR = ("input", "preferred_output", "non_preferred_output")
_TRL_PAIR = ("prompt", "chosen", "rejected")
_PARTS = ("text", "refusal")  # each has its text in the field of the same name


def is_conversation(fields: Collection[str]) -> bool:
    """Whether an object with these fields is a conversation."""
    return "messages" in fields


def is_preference(fields: Collection[str]) -> bool:
    """Whether an object with these fields is an input with a better and a worse answer."""
    return any(sum(name in fields for name in names) == 3 for names in (_OPENAI_PAIR, _TRL_PAIR))


def check_conversation(value: dict[str, Any]) -> None:
    """Raise ValueError that says what is wrong with one line."""
    if "messages" not in value:
        raise ValueError("'messages' is missing")
    _check_messages("messages", value["messages"])
    _check_objects("'tools'", value.get("tools"))


def check_preference(value: dict[str, Any]) -> None:
    """Raise ValueError that says what is wrong with one line."""
    names = _OPENAI_PAIR if "input" in value or "preferred_output" in value else _TRL_PAIR
    for name in names:
        if name not in value:
            raise ValueError(f"{name!r} is missing")
        content = value[name]
        if name == "input":
            if not isinstance(content, dict) or "messages" not in content:
                raise ValueError("'input' has no 'messages'")
            _check_objects("'tools'", content.get("tools"))
            content = content["messages"]
        if names is _OPENAI_PAIR or not isinstance(content, str):
            _check_messages(name, content)
    _check_objects("'tools'", value.get("tools"))


def _check_messages(name: str, messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{name!r} is not a list of messages")
    for number, message in enumerate(messages, 1):
        _check_message(f"message {number} of {name!r}", message)


def _check_message(place: str, message: object) -> None:
    if not isinstance(message, dict):
        raise ValueError(f"{place} is not an object")
    if message.get("role") not in _ROLES:
        raise ValueError(f"{place} has the role {message.get('role')!r:.40}, not one of {_ROLES}")
    if message.get("weight", 1) not in (0, 1):
        raise ValueError(f"{place} has the weight {message['weight']!r:.40}: it is 0 or 1")
    _check_objects(f"'tool_calls' of {place}", message.get("tool_calls"))
    if message.get("content") is not None:
        _check_content(place, message["content"])
    elif not any(message.get(field) for field in ("tool_calls", "function_call")):
        raise ValueError(f"{place} has no 'content'")


def _check_content(place: str, content: object) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise ValueError(f"{place} has the content {content!r:.40}: it is a text, or a list of parts")
    for part in content:
        if not isinstance(part, dict):
            raise ValueError(f"{place} has a part that is not an object")
        kind = part.get("type")
        if kind not in _PARTS:
            raise ValueError(f"{place} has a part of type {kind!r:.40}: only text is read")
        if not isinstance(part.get(kind), str):
            raise ValueError(f"{place} has a part of type {kind} whose {kind!r} is not a text")


def _check_objects(name: str, given: object) -> None:
    if given is not None and not (isinstance(given, list) and all(isinstance(each, dict) for each in given)):
        raise ValueError(f"{name} is not a list of objects")
