"""What surrounds every request: its id, the headers of every answer, the limit of its body, and the last resort."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import RAW_RECEIVE, respond
from core.errors import InvalidRequest, TooLarge, WeightworksError
from core.jobs.ids import new_id

log = logging.getLogger("weightworks.api")

ARRIVED = "weightworks.arrived"  # where the scope keeps when the request came, by the monotonic clock
LEAST_BYTES_PER_SECOND = 4096
NOTHING = "default-src 'none'; frame-ancestors 'none'"
FROM_HERE = "; ".join(f"{kind}-src 'self'" for kind in ("default", "connect", "font"))
PAGES = f"{FROM_HERE}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Surroundings:
    """Pure ASGI, so that streams pass through untouched.

    `body_limits`: how many bytes the bodies sent to paths like these may have; all others may have `body_limit`.
    `body_seconds`: how long we wait for a body in all, and a second more for each 4,096 bytes of it.
    """

    def __init__(self, app: ASGIApp, *, body_seconds: float, body_limit: int, body_limits: Mapping[str, int]) -> None:
        self.app = app
        self._body_seconds = body_seconds
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
                given: list[tuple[bytes, bytes]] = list(message.get("headers", []))
                names = {name for name, _ in given}
                rest = (one for one in _security_headers(scope["path"]) if one[0] not in names)
                message["headers"] = [*given, (b"x-request-id", request_id.encode()), *rest]
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
        scope[ARRIVED] = time.monotonic()
        if b"%00" in scope["raw_path"] or b"%00" in scope["query_string"]:
            await respond(InvalidRequest("the address contains a NUL character"))(scope, receive, send)
            return
        limits = (limit for pattern, limit in self._body_limits.items() if pattern.fullmatch(scope["path"]))
        limit = next(limits, self._body_limit)
        length = Headers(scope=scope).get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > limit:
            await respond(TooLarge(_too_large(limit)))(scope, receive, send)
            return
        await self.app(scope, _limited(receive, limit, self._body_seconds), send)


def _encoded(**more: str) -> list[tuple[bytes, bytes]]:
    headers = {**SECURITY_HEADERS, **{name.replace("_", "-"): value for name, value in more.items()}}
    return [(name.encode(), value.encode()) for name, value in headers.items()]


DOCS_HEADERS = _encoded(content_security_policy=f"{PAGES}; frame-ancestors 'none'")
API_HEADERS = _encoded(cache_control="no-store", content_security_policy=NOTHING)
OTHER_HEADERS = _encoded(content_security_policy=NOTHING)


def _security_headers(path: str) -> list[tuple[bytes, bytes]]:
    """What browsers may do with an answer: of the API's nothing, and keep none of it; of the docs' what they need."""
    if path.startswith("/docs"):
        return DOCS_HEADERS
    return API_HEADERS if path.startswith("/v1/") else OTHER_HEADERS


def _limited(receive: Receive, limit: int, seconds: float) -> Receive:
    """`receive` with an end to the body: to its bytes, where it does not tell their number beforehand, and its time.

    Only the time that we wait counts, not what we take to use what came.
    """
    bytes_left, patience = limit, seconds
    is_whole = False

    async def receive_limited() -> Message:
        nonlocal bytes_left, patience, is_whole
        if is_whole:
            return await receive()  # the end of the connection
        started = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, _too_slow(seconds)) from None
        patience -= time.monotonic() - started
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            patience += size / LEAST_BYTES_PER_SECOND
            bytes_left -= size
            is_whole = not message.get("more_body")
            if bytes_left < 0:
                raise HTTPException(413, _too_large(limit))
        return message

    return receive_limited


def _too_slow(seconds: float) -> str:
    least = f"{LEAST_BYTES_PER_SECOND:,} bytes a second after the first {seconds:g} seconds"
    return f"the body comes too slowly: send at least {least}, or send it in parts"


def _too_large(limit: int) -> str:
    return f"the body is larger than the {limit:,} bytes that are allowed here"
