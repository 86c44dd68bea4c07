"""Every error leaves in one envelope: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.catalog import spec_error
from core.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WeightworksError,
)

log = logging.getLogger("weightworks.api")

SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
}


def install(app: FastAPI) -> None:
    """Have every error of the app answered in the envelope."""
    app.add_exception_handler(WeightworksError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for away in (OperationalError, InterfaceError):
        app.add_exception_handler(away, _database)
    app.add_exception_handler(Exception, _unexpected)


def respond(error: WeightworksError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error as a response."""
    extra = dict(headers or {})
    if isinstance(error, Conflict):
        extra["x-should-retry"] = "false"
    if isinstance(error, Unauthenticated):
        extra["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        extra["retry-after"] = "2"
    return JSONResponse({"error": error.as_dict()}, status_code=error.status, headers=extra)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, WeightworksError)  # noqa: S101 - registered for it
    return respond(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        return respond(InvalidRequest(f"the body is not JSON: {found[0].get('ctx', {}).get('error', '')}"))
    return respond(spec_error(found))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if error.status_code == NotFound.status:
        return respond(NotFound(f"there is nothing at {request.method} {request.url.path[:200]}; see /docs"))
    problem = InvalidRequest(str(error.detail), code="method_not_allowed" if error.status_code == 405 else None)
    response = respond(problem, error.headers)
    response.status_code = error.status_code
    return response


async def _database(request: Request, error: Exception) -> JSONResponse:
    log.error("the database cannot be reached: %s", error)
    return respond(Unavailable("the database cannot be reached now; try again in a moment"))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = request.scope.get("request_id")
    log.exception("request %s failed", request_id, exc_info=error)
    return respond(WeightworksError(f"the server failed at this request; its log has more under {request_id}"))


class Headers:
    """Gives every answer an `x-request-id` and the security headers, and refuses bodies over the limit by length."""

    def __init__(self, app: ASGIApp, *, max_json_bytes: int) -> None:
        self.app = app
        self.max_json_bytes = max_json_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["request_id"] = request_id = f"req_{secrets.token_hex(12)}"
        headers = dict(scope["headers"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *((name, value) for name, value in SECURITY_HEADERS.items() if name not in present),
                ]
            await send(message)

        is_upload = headers.get(b"content-type", b"").startswith(b"multipart/")
        length = headers.get(b"content-length", b"0")
        if not is_upload and length.isdigit() and int(length) > self.max_json_bytes:
            error = TooLarge(f"the body is over {self.max_json_bytes:,} bytes; upload large data as a file")
            await respond(error)(scope, receive, send_with_headers)
            return
        if not is_upload and b"transfer-encoding" in headers:
            receive = _limited(receive, self.max_json_bytes)
        await self.app(scope, receive, send_with_headers)


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive`, raising TooLarge once a body of unknown length grows past `limit`."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge(f"the body is over {limit:,} bytes; upload large data as a file")
        return message

    return limited


def envelope_schema() -> dict[str, Any]:
    """The JSON schema of every error."""
    text_or_null = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    problem = {
        "type": "object",
        "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
        "required": ["where", "what"],
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
    }
    return {"title": "Error", "type": "object", "properties": {"error": inner}, "required": ["error"]}
