"""Every error of the client; `message` is written for whoever caused it.

WeightworksError
├── NotConnected              no server answers, or none is known
├── RequestRefused            the server answered with an error: status, type, param, code, request_id
│   ├── BadRequest            400, 413, 416 and others
│   │   └── Invalid           422  a spec or a data set that cannot be used; `problems` by line or member
│   ├── Unauthenticated       401
│   ├── Forbidden             403
│   ├── NotFound              404
│   ├── Conflict              409
│   ├── RateLimited           429
│   └── ServerFailed          5xx
├── DownloadDamaged           what arrived does not match its SHA-256
├── UploadDamaged             what was sent does not arrive as it was
├── WaitedTooLong             a job did not end within the time given
├── NoSuchPart                a part of a job's artifacts that it did not make
├── UnreadableSpec            a spec that is no JSON object, or a setting that is no key=value
└── CannotStart               `weightworks up` cannot run here
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class WeightworksError(Exception):
    """Whatever goes wrong between this client and its server."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotConnected(WeightworksError):
    """No server answers, or none is known."""


class RequestRefused(WeightworksError):
    """The server answered with an error."""

    def __init__(self, status: int, error: Mapping[str, Any], *, request_id: str | None) -> None:
        super().__init__(str(error.get("message") or f"the server answered {status}"))
        self.status = status
        self.type: str | None = error.get("type")
        self.param: str | None = error.get("param")
        self.code: str | None = error.get("code")
        self.problems: list[dict[str, Any]] = list(error.get("problems") or [])
        self.request_id = request_id


class BadRequest(RequestRefused):
    """The request cannot be understood or met."""


class Invalid(BadRequest):
    """A spec that cannot be trained as written, or a data set that cannot be read."""


class Unauthenticated(RequestRefused):
    """No key, or one that the server does not know."""


class Forbidden(RequestRefused):
    """The key's role does not allow this."""


class NotFound(RequestRefused):
    """There is no such thing in this key's project."""


class Conflict(RequestRefused):
    """The request is sound, but not at this moment."""


class RateLimited(RequestRefused):
    """Too many requests; the client has already waited and tried again."""


class ServerFailed(RequestRefused):
    """The server, or something that it needs, does not work; the client has already tried again."""


class DownloadDamaged(WeightworksError):
    """What arrived does not match its SHA-256."""


class UploadDamaged(WeightworksError):
    """What was sent does not arrive as it was."""


class WaitedTooLong(WeightworksError):
    """A job did not end within the time given."""


class NoSuchPart(WeightworksError):
    """The job did not make what is asked for."""


class UnreadableSpec(WeightworksError):
    """A spec that is no JSON object, or a setting that is no key=value."""


class CannotStart(WeightworksError):
    """`weightworks up` cannot run here."""


_BY_STATUS: Mapping[int, type[RequestRefused]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: RateLimited,
}


def refused(status: int, body: Any, *, request_id: str | None) -> RequestRefused:
    """The error of an answer with this status and body (the API's envelope, or anything a proxy may send)."""
    error = body.get("error") if isinstance(body, dict) else None
    kind = _BY_STATUS.get(status, ServerFailed if status >= 500 else BadRequest)
    return kind(status, error if isinstance(error, dict) else {}, request_id=request_id)
