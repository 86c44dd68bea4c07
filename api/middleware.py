"""What surrounds every request: its id, the headers of every answer, the limit of its body, and the last resort."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import RAW_RECEIVE, respond
from core.errors import InvalidRequest, TooLarge, WeightworksError
from core.jobs.models import new_id

log = logging.getLogger("weightworks.api")

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Surroundings:
    """Pure ASGI, so that streams pass through untouched.

    `body_limits`: how many bytes the bodies sent to paths like these may have; all others may have `body_limit`.
    """

    def __init__(self, app: ASGIApp, *, body_limit: int, body_limits: Mapping[str, int]) -> None:
        self.app = app
        self._body_limit = body_limit
        self._body_limits = {re.compile(pattern): limit for pattern, limit in body_limits.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its answer dressed."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_started = False
        request_id = new_id("req")

        async def send_dressed(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._pass_on(scope, receive, send_dressed)
        except ClientDisconnect:
            return
        except Exception:
            log.exception("%s: %s %s failed", request_id, scope["method"], scope["path"])
            if is_started:
                raise
            error = WeightworksError(f"the server failed at this request; its log has more under {request_id}")
            await respond(error)(scope, receive, send_dressed)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[RAW_RECEIVE] = receive
        if b"%00" in scope["raw_path"] or b"%00" in scope["query_string"]:
            await respond(InvalidRequest("the address contains a NUL character"))(scope, receive, send)
            return
        limits = (limit for pattern, limit in self._body_limits.items() if pattern.fullmatch(scope["path"]))
        limit = next(limits, self._body_limit)
        length = Headers(scope=scope).get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > limit:
            await respond(TooLarge(_too_large(limit)))(scope, receive, send)
            return
        await self.app(scope, _limited(receive, limit), send)


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive` for bodies that do not tell their length beforehand."""
    left = limit

    async def receive_limited() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, _too_large(limit))
        return message

    return receive_limited


def _too_large(limit: int) -> str:
    return f"the body is larger than the {limit:,} bytes that are allowed here"
