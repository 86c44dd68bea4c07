"""Every error leaves in one envelope: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from core.catalog import spec_error
from core.errors import BeingFetched, InvalidRequest, NotFound, TooLarge, TooManyRequests, Unavailable, WeightworksError
from core.jobs.database import AWAY
from core.storage import refusal_of

log = logging.getLogger("weightworks.api")

RAW_RECEIVE = "weightworks.receive"  # where the scope keeps `receive` as the server gave it, without our limit
DRAIN_SECONDS, DRAIN_BYTES = 1.0, 16 * 2**20
# May be sent in mid-upload.
UNREAD = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.INSUFFICIENT_STORAGE)


def install(app: FastAPI) -> None:
    """Have every error of the app answered in the envelope; what is unforeseen is answered by the middleware."""
    app.add_exception_handler(WeightworksError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OSError, _disk)
    for away in AWAY:
        app.add_exception_handler(away, _database)


def respond(error: WeightworksError, headers: Mapping[str, str] | None = None) -> Response:
    """The error as a response."""
    if isinstance(error, TooManyRequests | BeingFetched):
        milliseconds = math.ceil(1000 * error.retry_after)  # which the openai client obeys first
        waiting = {"retry-after": str(math.ceil(error.retry_after)), "retry-after-ms": str(milliseconds)}
        headers = {**waiting, **(headers or {})}
    return _envelope(error.status, error.as_dict(), headers)


def _envelope(status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    added = dict(headers or {})
    if status == HTTPStatus.CONFLICT:
        added["x-should-retry"] = "false"  # the openai client would send it again
    if status == HTTPStatus.UNAUTHORIZED:
        added["www-authenticate"] = "Bearer"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        added.setdefault("retry-after", "2")
    kind = _ClosingResponse if status in UNREAD else JSONResponse
    return kind({"error": error}, status_code=status, headers=added)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, WeightworksError)  # noqa: S101 - registered for it
    return respond(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        return respond(InvalidRequest(f"the body is not JSON: {found[0]['ctx']['error']}", code="invalid_json"))
    problem = spec_error(found)
    if found[0]["loc"][0] != "body":
        problem.code = "invalid_parameter"
    return respond(problem)


async def _http(request: Request, error: Exception) -> Response:
    """What Starlette and FastAPI raise by themselves."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if error.status_code == HTTPStatus.NOT_FOUND:
        return respond(NotFound(f"there is nothing at {request.method} {request.url.path[:200]}; see /docs"))
    status = HTTPStatus(error.status_code)
    message, code = str(error.detail), status.name.lower()
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.method} cannot be done at {request.url.path[:200]}; see /docs"
        error.headers = {"allow": ", ".join(_methods_at(request))}
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        code = TooLarge.code
    kind = InvalidRequest.type if status < HTTPStatus.INTERNAL_SERVER_ERROR else WeightworksError.type
    return _envelope(status, {"message": message, "type": kind, "param": None, "code": code}, error.headers)


def _methods_at(request: Request) -> list[str]:
    """What can be done at this address; Starlette knows only what its first route can do."""
    paths = request.app.openapi()["paths"]
    address = request.url.path
    place = next((path for path in (address, *paths) if path in paths and _pattern(path).fullmatch(address)), None)
    return sorted(map(str.upper, paths[place])) if place else ["GET"]


@cache
def _pattern(path: str) -> re.Pattern[str]:
    named = re.sub(r"\\{(path|model_id)\\}", ".+", re.escape(path))
    return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", named))


async def _database(request: Request, error: Exception) -> Response:
    log.error("the database cannot be reached: %s", str(error).partition("\n")[0])
    return respond(Unavailable("the database cannot be reached now; try again in a moment"))


async def _disk(request: Request, error: Exception) -> Response:
    """Storage that is full or read-only; any other OSError is a fault of ours."""
    refusal = refusal_of(error)
    if refusal is None:
        raise error
    log.error("storage fails: %s", error)
    return respond(refusal)


class _ClosingResponse(JSONResponse):
    """Refuses a body without reading it, and closes the connection once the client has had a moment to read that.

    Closing at once, with bytes unread, would reset the connection, and the client might lose the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers["connection"] = "close"
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_drain(scope.get(RAW_RECEIVE, receive)), DRAIN_SECONDS)
        await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    left = DRAIN_BYTES
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return
        left -= len(message.get("body", b""))


WAITING_HEADERS = {
    "retry-after": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "retry-after-ms": {"description": "The same in milliseconds.", "schema": {"type": "integer"}},
}


def envelope_schema() -> dict[str, Any]:
    """The JSON schema of every error."""
    text_or_null = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    problem = {
        "type": "object",
        "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
        "required": ["where", "what"],
        "additionalProperties": False,
    }
    inner = {
        "type": "object",
        "properties": {
            "message": {"type": "string"},
            "type": {"type": "string"},
            "param": text_or_null,
            "code": text_or_null,
            "problems": {"type": "array", "items": problem},
        },
        "required": ["message", "type", "param", "code"],
        "additionalProperties": False,
    }
    return {
        "title": "Error",
        "type": "object",
        "properties": {"error": inner},
        "required": ["error"],
        "additionalProperties": False,
    }
