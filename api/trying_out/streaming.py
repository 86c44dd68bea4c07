"""Answers as server-sent events while they are written, as the hosted API's clients read them."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.answers.answer import Answer
from api.live import AT_ONCE, DONE
from api.trying_out.completing import Told, chat_logprobs, reason_told, text_logprobs, told_call
from api.trying_out.exchange import Exchange, Message
from api.trying_out.schemas import (
    ChatChunk,
    ChunkChoice,
    Delta,
    TextChoice,
    TextCompletion,
    ToolCallDelta,
    UsageObject,
)
from api.trying_out.tool_calls import Call, CallReader
from core.errors import WeightworksError
from core.jobs.ids import new_id


@dataclass
class Chunks(ABC):
    """Makes the chunks of an answer; `choices`: how many each order asks for."""

    model: str
    choices: int
    has_usage: bool
    prefix: ClassVar[str]  # of the answer's id
    kind: ClassVar[type[ChatChunk] | type[TextCompletion]]

    def __post_init__(self) -> None:
        self._id, self._created = new_id(self.prefix), int(time.time())

    @abstractmethod
    def of(self, message: Message, index: int) -> list[Answer]:
        """The chunks that tell of a message, which is about the choice of this index."""

    def with_choices(self, *choices: Any, usage: UsageObject | None = None) -> Answer:
        """A chunk of these choices; of none, with `usage`, the last one."""
        return self.kind(id=self._id, created=self._created, model=self.model, choices=list(choices), usage=usage)


@dataclass
class ChatChunks(Chunks):
    """The chunks of a chat: each choice begins with its role; `tools`: those that were offered."""

    prefix, kind = "chatcmpl", ChatChunk
    tools: Sequence[Mapping[str, Any]] = ()
    readers: dict[int, CallReader] = field(default_factory=dict)

    def of(self, message: Message, index: int) -> list[Answer]:
        """A chunk for each choice as it begins, for what comes to it, and for its end."""
        if message["type"] == "started":
            return [self._chunk(index + choice, Delta(role="assistant", content="")) for choice in range(self.choices)]
        reader = self.readers.setdefault(index, CallReader(self.tools))
        if message["type"] == "finished":
            rest = [self._chunk(index, delta) for delta in _deltas(reader, reader.finish())]
            reason = reason_told(message["finish_reason"], has_calls=reader.calls > 0)
            return [*rest, self.with_choices(ChunkChoice(index=index, delta=Delta(), finish_reason=reason))]
        deltas = _deltas(reader, reader.add(message["text"]))
        if not deltas and message["logprobs"]:
            deltas = [Delta(content="")]  # what the token says may be a part of a call
        return [self._chunk(index, delta, None if place else message) for place, delta in enumerate(deltas)]

    def _chunk(self, index: int, delta: Delta, message: Message | None = None) -> Answer:
        logprobs = chat_logprobs([message["logprobs"]]) if message and message["logprobs"] else None
        return self.with_choices(ChunkChoice(index=index, delta=delta, logprobs=logprobs))


def _deltas(reader: CallReader, found: Sequence[str | Call]) -> list[Delta]:
    """What comes to an answer: text, and calls, of which the reader has counted the last."""
    index = reader.calls - sum(isinstance(part, Call) for part in found)
    deltas = []
    for part in found:
        if isinstance(part, Call):
            deltas.append(Delta(tool_calls=[ToolCallDelta(**told_call(part), index=index)]))
            index += 1
        else:
            deltas.append(Delta(content=part))
    return deltas


@dataclass
class TextChunks(Chunks):
    """The chunks of a completion."""

    prefix, kind = "cmpl", TextCompletion
    sent: dict[int, int] = field(default_factory=dict)  # characters, by choice

    def of(self, message: Message, index: int) -> list[Answer]:
        """A chunk for what comes to a choice, and for its end."""
        if message["type"] == "finished":
            end = TextChoice(index=index, text="", logprobs=None, finish_reason=message["finish_reason"])
            return [self.with_choices(end)]
        if message["type"] == "started" or not (message["text"] or message["logprobs"]):
            return []
        offset = self.sent.get(index, 0)
        self.sent[index] = offset + len(message["text"])
        logprobs = text_logprobs([message["logprobs"]], offset=offset) if message["logprobs"] else None
        piece = TextChoice(index=index, text=message["text"], logprobs=logprobs, finish_reason=None)
        return [self.with_choices(piece)]


class Stream(StreamingResponse):
    """The events of an exchange, which is closed however they end, also before the first."""

    def __init__(self, exchange: Exchange, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=AT_ONCE)
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._exchange.close()


async def stream(exchange: Exchange, chunks: Chunks) -> Stream:
    """The answer as a stream; raises what goes wrong before its first event."""
    try:
        first = await exchange.next()
    except BaseException:
        exchange.close()
        raise
    return Stream(exchange, _events(exchange, first, chunks))


async def _events(exchange: Exchange, message: Message | None, chunks: Chunks) -> AsyncIterator[bytes]:
    """Every chunk, then [DONE]; what goes wrong on the way is the last event, and raised by clients."""
    told = Told()
    try:
        while message is not None:
            index = message["order"] * chunks.choices + message.get("index", 0)
            told.take(message, index=index)
            for chunk in chunks.of(message, index):
                yield _event(chunk.model_dump_json())
            message = await exchange.next()
    except WeightworksError as error:
        yield _event(json.dumps({"error": error.as_dict()}))
        return
    if chunks.has_usage:
        yield _event(chunks.with_choices(usage=told.usage).model_dump_json())
    yield DONE


def _event(text: str) -> bytes:
    return f"data: {text}\n\n".encode()
