"""Every error Weightworks raises on purpose, each with its HTTP status, its code and its cure.

WeightworksError
├── InvalidRequest            400  the request itself is malformed
│   ├── InvalidSpec           422  a job spec that cannot be trained as written
│   └── InvalidData           422  a data set that cannot be read, told by line or member
├── Unauthenticated           401
├── Forbidden                 403
│   └── QuotaUsedUp           403  the project has used up what it may use
├── NotFound                  404
├── Conflict                  409  the wrong moment, or the same key with another body
├── TooLarge                  413
├── RangeNotSatisfiable       416
├── TooManyRequests           429  later, as `retry-after` says
│   └── QuotaReached          429  the project has as much going on at once as it may have
├── Unavailable               503  database, Redis or storage cannot be reached
│   ├── BeingFetched          503  the model is on its way from the hub: later, as `retry-after` says
│   └── StorageFull           507  no space is left for this
└── TrainingFailed            500  a run that cannot go on
    └── CheckpointDamaged     500  a checkpoint whose hash or content is wrong
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

MAX_PROBLEMS = 100


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set, and where: a line, a row, or an archive's member."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class WeightworksError(Exception):
    """An error whose message is written for the person who caused it: what is wrong and what would be right."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def as_dict(self) -> dict[str, Any]:
        """The body of the error as the API and the job's row show it."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class InvalidRequest(WeightworksError):
    """The request cannot be understood."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidSpec(InvalidRequest):
    """A job spec that cannot be trained as written; `param` names the field."""

    status = 422
    code = "invalid_spec"


class InvalidData(InvalidRequest):
    """A data set that cannot be read. Holds the first hundred problems."""

    status = 422
    code = "invalid_data"

    def __init__(
        self, problems: str | Problem | Sequence[Problem], *, param: str | None = "file", code: str | None = None
    ) -> None:
        if isinstance(problems, str):
            problems = [Problem("", problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems = list(problems)[:MAX_PROBLEMS]
        shown = "; ".join(str(problem) for problem in self.problems[:3])
        more = len(problems) - 3
        super().__init__(shown + (f"; and {more} more" if more > 0 else ""), param=param, code=code)

    def as_dict(self) -> dict[str, Any]:
        """As every error, with the list of problems beside the message."""
        problems = [{"where": problem.where, "what": problem.what} for problem in self.problems]
        return {**super().as_dict(), "problems": problems}


class Unauthenticated(WeightworksError):
    """No key, or one that is not known."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(WeightworksError):
    """The key's role does not allow this."""

    status = 403
    type = "permission_error"
    code = "insufficient_role"


class QuotaUsedUp(Forbidden):
    """The project has used up what it may use; `param` names the quota."""

    code = "quota_exceeded"


class NotFound(InvalidRequest):
    """There is no such thing in this project."""

    status = 404
    code = "not_found"


class Conflict(InvalidRequest):
    """The request is sound, but not at this moment."""

    status = 409
    code = "conflict"


class TooLarge(InvalidRequest):
    """The body, or what it unpacks to, is over the limit."""

    status = 413
    code = "too_large"


class RangeNotSatisfiable(InvalidRequest):
    """The range asked for lies outside the file."""

    status = 416
    code = "range_not_satisfiable"


class TooManyRequests(WeightworksError):
    """The request is sound, but there were too many before it; it may be made again after `retry_after` seconds."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after = retry_after


class QuotaReached(TooManyRequests):
    """The project has as much going on at once as it may have; `param` names the quota."""

    code = "quota_exceeded"


class Unavailable(WeightworksError):
    """A part that this server needs cannot be reached now."""

    status = 503
    code = "unavailable"


class BeingFetched(Unavailable):
    """The model is on its way from a hub; the request may be made again after `retry_after` seconds."""

    code = "model_being_fetched"

    def __init__(self, message: str, *, retry_after: float, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after


class StorageFull(Unavailable):
    """The disk has no space left."""

    status = 507
    code = "storage_full"


class TrainingFailed(WeightworksError):
    """A run that cannot go on; the message says what to change."""

    code = "training_failed"


class CheckpointDamaged(TrainingFailed):
    """A checkpoint that is cut short or does not match its hash."""

    code = "checkpoint_damaged"
