"""From what is asked to what the serving process is told; what no model here obeys is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from api.trying_out.requests import (
    ChatMessage,
    ChatRequest,
    ComparisonRequest,
    CompletionRequest,
    Drawing,
    EmbeddingRequest,
)
from core.data.conversations import plain_messages
from core.errors import InvalidRequest
from core.settings import Settings


def chat_order(body: ChatRequest, settings: Settings) -> dict[str, Any]:
    """What the serving process is asked; raises InvalidRequest that names what is not done here."""
    _refuse(body, "audio", "functions", "function_call", "moderation", "web_search_options")
    if (body.response_format or {}).get("type", "text") != "text":
        raise _unsupported("response_format", "answers are free text: ask for JSON in the messages, or leave it out")
    if body.tool_choice not in (None, "auto", "none"):
        raise _unsupported("tool_choice", "take auto or none")
    if set(body.modalities or ()) - {"text"}:
        raise _unsupported("modalities", "answers are text")
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true beside it", param="top_logprobs")
    most = body.max_completion_tokens or body.max_tokens
    return _generate(
        body,
        messages=_messages(body.messages),
        tools=body.offered_tools or None,
        choices=body.choices,
        max_tokens=most,
        default_tokens=settings.serving_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


def completion_orders(body: CompletionRequest) -> list[dict[str, Any]]:
    """What the serving process is asked for each prompt; raises InvalidRequest."""
    _refuse(body, "suffix")
    if (body.best_of or body.choices) != body.choices:
        raise _unsupported("best_of", "ask for n answers and choose")
    if body.echo and body.logprobs is not None:
        raise _unsupported("logprobs", "not with echo: the prompt's tokens are not told of")
    return [
        _generate(
            body,
            prompt=prompt,
            choices=body.choices,
            max_tokens=body.max_tokens or 16,
            echo=bool(body.echo),
            logprobs=body.logprobs,
        )
        for prompt in _each(body.prompt)
    ]


def comparison_order(body: ComparisonRequest, settings: Settings) -> dict[str, Any]:
    """What the serving process is asked of each model: greedily, unless a temperature is given."""
    if (body.messages is None) == (body.prompt is None):
        raise InvalidRequest("give either messages or a prompt", param="messages")
    greedy = body if body.temperature is not None else body.model_copy(update={"temperature": 0.0})
    asked: dict[str, Any] = {"messages": _messages(body.messages)} if body.messages else {"prompt": body.prompt}
    return _generate(greedy, max_tokens=body.max_tokens, default_tokens=settings.serving_tokens, **asked)


def embedding_order(body: EmbeddingRequest) -> dict[str, Any]:
    """What the serving process is asked."""
    return {"type": "embed", "inputs": _each(body.input), "dimensions": body.dimensions}


def _each(given: Any) -> Sequence[Any]:
    """Texts, or tokens of texts, of which one may have been given by itself."""
    return given if isinstance(given, list) and not isinstance(given[0], int) else [given]


def _generate(body: Drawing, *, logprobs: int | None = None, **asked: Any) -> dict[str, Any]:
    sampling: dict[str, Any] = {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": body.top_p or 1.0,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "logit_bias": body.logit_bias or {},
        "seed": body.seed,
        "logprobs": logprobs,
    }
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return {"type": "generate", "asked": {**asked, "stop": stop, "sampling": sampling}}


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat templates take them; raises InvalidRequest for parts that are not text."""
    plain = plain_messages([_read(message, f"messages.{index}") for index, message in enumerate(messages)])
    return [dict(message) for message in plain]


def _read(message: ChatMessage, place: str) -> dict[str, Any]:
    given = message.model_dump(exclude_none=True, exclude={"refusal", "annotations", "audio"})
    if isinstance(message.content, list):
        for part in message.content:
            if part.type not in ("text", "refusal"):
                raise _unsupported(f"{place}.content", f"only text is read, and this holds a part of type {part.type}")
        given = {**given, "content": "".join(part.text or part.refusal or "" for part in message.content)}
    return given


def _refuse(body: BaseModel, *fields: str) -> None:
    """Raise InvalidRequest for the first of these fields that is given."""
    for name in fields:
        if getattr(body, name) is not None:
            raise _unsupported(name, "no model here does this: leave it out")


def _unsupported(name: str, cure: str) -> InvalidRequest:
    """What is said of a setting that is not obeyed here."""
    return InvalidRequest(f"{name} is not supported as given: {cure}", param=name, code="unsupported_parameter")
