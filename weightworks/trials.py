"""Trying models out: an answer as it is written, and several models' answers to the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from weightworks.errors import NotConnected, refused
from weightworks.records import read
from weightworks.transport import Transport, given

PATIENCE_SECONDS = 600.0  # a model may have to be fetched and opened first


@dataclass(frozen=True)
class Answer:
    """What one model answered."""

    model: str
    text: str
    finish_reason: str
    usage: dict[str, int] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


class Trials:
    """`/v1/chat/completions` and `/v1/comparisons`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def chat(self, model: str, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Iterator[str]:
        """Pieces of the model's answer to the messages; `settings`: temperature, max_tokens and their like."""
        body = {"model": model, "messages": list(messages), "stream": True, **given(settings)}
        with self._transport.stream("/v1/chat/completions", body=body, timeout=PATIENCE_SECONDS) as response:
            try:
                yield from _pieces(response)
            except httpx.TransportError as error:
                raise NotConnected(f"the answer was cut off ({error}): ask again") from error

    def compare(self, models: Sequence[str], **asked: Any) -> list[Answer]:
        """Each model's answer to the same `messages` or `prompt`; one alone beside the base that it was tuned from."""
        body = {"models": list(models), **given(asked)}
        with self._transport.stream("/v1/comparisons", body=body, timeout=PATIENCE_SECONDS) as response:
            response.read()
            return [read(Answer, one) for one in response.json()["answers"]]


def _pieces(response: httpx.Response) -> Iterator[str]:
    for line in response.iter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        told = json.loads(line.removeprefix("data: "))
        if "error" in told:
            raise refused(500, told, request_id=response.headers.get("x-request-id"))
        for choice in told["choices"]:
            if choice["delta"]["content"]:
                yield choice["delta"]["content"]
