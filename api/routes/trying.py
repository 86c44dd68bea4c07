"""Trying models out: chats, completions and embeddings as at the hosted API, and several models side by side."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.dependencies import Caller, Reader, Server, ServerDep
from api.downloads import Responses
from api.trying_out.completing import chat_completion, gather, text_completion
from api.trying_out.exchange import Exchange, Message
from api.trying_out.naming import base_of, models_named
from api.trying_out.orders import chat_order, comparison_order, completion_orders, embedding_order
from api.trying_out.requests import ChatRequest, ComparisonRequest, CompletionRequest, EmbeddingRequest
from api.trying_out.schemas import (
    ChatCompletion,
    ComparedAnswer,
    ComparisonObject,
    EmbeddingList,
    EmbeddingObject,
    EmbeddingUsage,
    TextCompletion,
    UsageObject,
)
from api.trying_out.streaming import ChatChunks, TextChunks, stream

router = APIRouter(prefix="/v1", tags=["trying models out"])

Found = TypeVar("Found")
SSE = "With `stream`: chunks as server-sent events, `data: {...}`, ending with `data: [DONE]`."
EVENT_STREAM: Responses = {200: {"content": {"text/event-stream": {"schema": {"type": "string", "description": SSE}}}}}


@router.post("/chat/completions", response_model=ChatCompletion, responses=EVENT_STREAM)
async def create_chat_completion(body: ChatRequest, request: Request, caller: Reader, server: ServerDep) -> Any:
    """Answer a conversation, by a causal language model that was trained here or uploaded."""
    order = chat_order(body, server.settings)
    exchange = await _ask(server, caller, [body.model], [order])
    if body.stream:
        chunks = ChatChunks(body.model, body.choices, body.has_usage, tools=body.offered_tools)
        return await stream(exchange, chunks)
    told = await _unless_gone(request, exchange, gather(exchange, choices=body.choices))
    return chat_completion(told, model=body.model, tools=body.offered_tools)


@router.post("/completions", response_model=TextCompletion, responses=EVENT_STREAM)
async def create_completion(body: CompletionRequest, request: Request, caller: Reader, server: ServerDep) -> Any:
    """Go on with a text, or with several."""
    orders = completion_orders(body)
    exchange = await _ask(server, caller, [body.model] * len(orders), orders)
    if body.stream:
        return await stream(exchange, TextChunks(body.model, body.choices, body.has_usage))
    told = await _unless_gone(request, exchange, gather(exchange, choices=body.choices))
    return text_completion(told, model=body.model)


@router.post("/embeddings")
async def create_embeddings(
    body: EmbeddingRequest, request: Request, caller: Reader, server: ServerDep
) -> EmbeddingList:
    """Make vectors of texts, by an encoder, a causal language model, or word vectors."""
    exchange = await _ask(server, caller, [body.model], [embedding_order(body)])
    messages = await _unless_gone(request, exchange, _all(exchange))
    count = messages[0]["prompt_tokens"]
    vectors = [_vector(message, is_base64=body.encoding_format == "base64") for message in messages[1:]]
    return EmbeddingList(data=vectors, model=body.model, usage=EmbeddingUsage(prompt_tokens=count, total_tokens=count))


@router.post("/comparisons")
async def create_comparison(
    body: ComparisonRequest, request: Request, caller: Reader, server: ServerDep
) -> ComparisonObject:
    """Have several models answer the same: a single one beside the base that it was tuned from. Greedily, if not asked
    for a temperature.
    """
    order = comparison_order(body, server.settings)
    names = list(body.models)
    if len(names) == 1:
        names.insert(0, await run_in_threadpool(base_of, server, caller, names[0], param="models"))
    exchange = await _ask(server, caller, names, [order] * len(names), param="models")
    told = await _unless_gone(request, exchange, _all(exchange))
    answers = [_compared(name, [one for one in told if one["order"] == place]) for place, name in enumerate(names)]
    return ComparisonObject(created=int(time.time()), answers=answers)


async def _ask(
    server: Server, caller: Caller, names: Sequence[str], orders: Sequence[Mapping[str, Any]], *, param: str = "model"
) -> Exchange:
    models = await run_in_threadpool(models_named, server, caller, names, param=param)
    return await server.serving.ask(caller.project_id, list(zip(models, orders, strict=True)))


async def _unless_gone(request: Request, exchange: Exchange, answer: Awaitable[Found]) -> Found:
    """The answer, after which the exchange is over; raises ClientDisconnect when whoever asked leaves before."""
    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()
        exchange.close()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _all(exchange: Exchange) -> list[Message]:
    found = []
    while (message := await exchange.next()) is not None:
        found.append(message)
    return found


def _vector(message: Message, *, is_base64: bool) -> EmbeddingObject:
    content = message["base64"]
    if is_base64:
        return EmbeddingObject(index=message["index"], embedding=content)
    numbers = [number for (number,) in struct.iter_unpack("<f", base64.b64decode(content))]
    return EmbeddingObject(index=message["index"], embedding=numbers)


def _compared(name: str, messages: Sequence[Message]) -> ComparedAnswer:
    prompt = next(one["prompt_tokens"] for one in messages if one["type"] == "started")
    end = next(one for one in messages if one["type"] == "finished")
    return ComparedAnswer(
        model=name,
        text="".join(one["text"] for one in messages if one["type"] == "piece"),
        finish_reason=end["finish_reason"],
        usage=UsageObject(prompt_tokens=prompt, completion_tokens=end["tokens"], total_tokens=prompt + end["tokens"]),
    )
