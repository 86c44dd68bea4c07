"""Conversations and preference pairs, in the JSON Lines that OpenAI's fine-tuning takes and in TRL's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_OPENAI_PAIR = ("input", "preferred_output", "non_preferred_output")
_TRL_PAIR = ("prompt", "chosen", "rejected")


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
            content = content["messages"]
        if names is _OPENAI_PAIR or not isinstance(content, str):
            _check_messages(name, content)


def _check_messages(name: str, messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{name!r} is not a list of messages")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            raise ValueError(f"message {number} of {name!r} is not an object")
        if message.get("role") not in _ROLES:
            raise ValueError(
                f"message {number} of {name!r} has the role {message.get('role')!r:.40}, not one of {_ROLES}"
            )
        if message.get("weight", 1) not in (0, 1):
            raise ValueError(f"message {number} of {name!r} has the weight {message['weight']!r:.40}: it is 0 or 1")
        if not any(message.get(field) for field in ("tool_calls", "function_call")) and not isinstance(
            message.get("content"), str | list
        ):
            raise ValueError(f"message {number} of {name!r} has no 'content'")
