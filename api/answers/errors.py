"""Why something failed, as the API answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from api.answers.answer import Answer


class ProblemObject(Answer):
    """One thing that is wrong with a data set, and where."""

    where: str
    what: str


class ErrorObject(Answer):
    """Why a job failed, and what would help."""

    message: str
    type: str
    param: str | None
    code: str | None
    problems: list[ProblemObject] = Field([])


def error_object(error: Mapping[str, Any]) -> ErrorObject:
    """Why something failed, as its row has it."""
    known = ErrorObject.model_fields
    return ErrorObject(**{name: value for name, value in error.items() if name in known})
