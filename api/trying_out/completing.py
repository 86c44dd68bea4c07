"""Turns what the serving process says into whole answers, in the words of the hosted API."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.trying_out.exchange import Exchange, Message
from api.trying_out.schemas import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    FunctionCall,
    LikelyToken,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    TokenLogprob,
    ToolCall,
    UsageObject,
)
from api.trying_out.tool_calls import Call, read_calls
from core.jobs.ids import new_id

BROKEN = "\ufffd"


@dataclass
class Written:
    """What has come of one choice."""

    text: str = ""
    logprobs: list[Message] = field(default_factory=list)
    finish_reason: Any = None


@dataclass
class Told:
    """What has come of all choices, and how many tokens there were."""

    choices: dict[int, Written] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def take(self, message: Message, *, index: int) -> None:
        """Note what was said of the choice of this index."""
        if message["type"] == "started":
            self.prompt_tokens += message["prompt_tokens"]
            return
        choice = self.choices.setdefault(index, Written())
        if message["type"] == "piece":
            choice.text += message["text"]
            choice.logprobs += [message["logprobs"]] if message["logprobs"] else []
        else:
            choice.finish_reason = message["finish_reason"]
            self.completion_tokens += message["tokens"]

    @property
    def usage(self) -> UsageObject:
        """How many tokens there were."""
        return UsageObject(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=self.prompt_tokens + self.completion_tokens,
        )

    def each(self) -> Iterator[tuple[int, Written]]:
        """The choices in their order."""
        return iter(sorted(self.choices.items()))


async def gather(exchange: Exchange, *, choices: int = 1) -> Told:
    """All that is answered; `choices`: how many each order asks for."""
    told = Told()
    while (message := await exchange.next()) is not None:
        told.take(message, index=message["order"] * choices + message.get("index", 0))
    return told


def chat_completion(told: Told, *, model: str, tools: Sequence[Mapping[str, Any]]) -> ChatCompletion:
    """The whole answer to a chat; `tools`: those that were offered."""
    choices = [_chat_choice(index, choice, tools) for index, choice in told.each()]
    return ChatCompletion(
        id=new_id("chatcmpl"), created=int(time.time()), model=model, choices=choices, usage=told.usage
    )


def _chat_choice(index: int, choice: Written, tools: Sequence[Mapping[str, Any]]) -> ChatChoice:
    text, calls = read_calls(choice.text, tools)
    made = [ToolCall(**told_call(call)) for call in calls]
    return ChatChoice(
        index=index,
        message=AssistantMessage(content=text or None if made else text, tool_calls=made or None),
        logprobs=chat_logprobs(choice.logprobs),
        finish_reason=reason_told(choice.finish_reason, has_calls=bool(made)),
    )


def told_call(call: Call) -> dict[str, Any]:
    """The fields of a ToolCall, with an id of its own."""
    return {"id": new_id("call"), "function": FunctionCall(name=call.name, arguments=call.arguments)}


def reason_told(reason: Any, *, has_calls: bool) -> Any:
    """Why an answer ends: one that calls tools, and was not cut off, waits for what they answer."""
    return "tool_calls" if has_calls and reason == "stop" else reason


def text_completion(told: Told, *, model: str) -> TextCompletion:
    """The whole answer to a completion."""
    choices = [
        TextChoice(
            index=index,
            text=choice.text,
            logprobs=text_logprobs(choice.logprobs),
            finish_reason=choice.finish_reason,
        )
        for index, choice in told.each()
    ]
    return TextCompletion(id=new_id("cmpl"), created=int(time.time()), model=model, choices=choices, usage=told.usage)


def chat_logprobs(found: Sequence[Message]) -> ChatLogprobs | None:
    """The tokens' probabilities in a chat's words; None where none were asked for."""
    if not found:
        return None
    content = [
        TokenLogprob(**_likely(one).model_dump(), top_logprobs=[_likely(other) for other in one["top_logprobs"]])
        for one in found
    ]
    return ChatLogprobs(content=content)


def _likely(one: Message) -> LikelyToken:
    token = one["token"]
    return LikelyToken(token=token, bytes=None if BROKEN in token else list(token.encode()), logprob=one["logprob"])


def text_logprobs(found: Sequence[Message], *, offset: int = 0) -> TextLogprobs | None:
    """The tokens' probabilities in a completion's words; `offset`: where the first begins in the text."""
    if not found:
        return None
    offsets = []
    for one in found:
        offsets.append(offset)
        offset += len(one["token"])
    return TextLogprobs(
        tokens=[one["token"] for one in found],
        token_logprobs=[one["logprob"] for one in found],
        top_logprobs=[{other["token"]: other["logprob"] for other in one["top_logprobs"]} for one in found],
        text_offset=offsets,
    )
