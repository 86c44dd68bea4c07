"""Graders tried out before a job: whether one is sound, and what it gives to an answer. Nothing is stored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from api.dependencies import Reader
from api.schemas import GraderErrors, GraderMetadata, GraderObject, GraderRunObject
from core.graders import LONGEST, Grade, Grader, grade
from core.spec import Frozen

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["graders"])


class GraderToValidate(Frozen):
    """A grader."""

    grader: Grader = Field(description="The grader.")


class GraderToRun(Frozen):
    """A grader, an answer, and what the grader knows of the question."""

    grader: Grader = Field(description="The grader.")
    model_sample: Annotated[str, Field(max_length=LONGEST)] = Field(
        description="The answer: `sample.output_text`, and `sample.output_json` if it is JSON."
    )
    item: dict[str, Any] = Field(default_factory=dict, description="A line of a data set: the names in `item`.")


@router.post("/validate")
def validate_grader(body: GraderToValidate, caller: Reader) -> GraderObject:
    """The grader, if it is sound; what is wrong with it is told as an error."""
    return GraderObject(grader=body.grader)


@router.post("/run")
def run_grader(body: GraderToRun, caller: Reader) -> GraderRunObject:
    """What the grader gives to an answer; where it cannot grade it, 0 and the reason in `metadata.errors`."""
    started = time.perf_counter()
    found = grade(body.grader, body.item, body.model_sample)
    scores: Mapping[str, float] = found.parts or {body.grader.name: found.reward}
    return GraderRunObject(
        reward=found.reward,
        sub_rewards=dict(found.parts),
        metadata=GraderMetadata(
            name=body.grader.name,
            type=body.grader.type,
            errors=_errors(found),
            execution_time=time.perf_counter() - started,
            scores=dict(scores),
        ),
    )


def _errors(found: Grade) -> GraderErrors:
    return GraderErrors(
        invalid_variable_error=found.failure == "item",
        sample_parse_error=found.failure == "sample",
        other_error=found.failure == "formula",
        other_error_details=found.error,
    )
