"""Graders tried out before a job: whether one is sound, and what it gives to an answer. Nothing is stored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from api.answers.answer import Answer
from api.dependencies import Reader, ServerDep
from core.graders import LONGEST, Grade, Grader
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


class GraderObject(Answer):
    """A grader that is sound."""

    grader: Grader


class GraderErrors(Answer):
    """What kept an answer from being graded, in the fine-tuning API's words; most of it cannot happen here."""

    formula_parse_error: Literal[False] = False
    invalid_variable_error: bool = Field(description="The item has no such name.")
    model_grader_parse_error: Literal[False] = False
    model_grader_refusal_error: Literal[False] = False
    model_grader_server_error: Literal[False] = False
    model_grader_server_error_details: None = None
    other_error: bool = Field(description="The formula has no value, as in a division by zero.")
    other_error_details: str | None = Field(description="What was wrong, whichever of these it was.")
    python_grader_runtime_error: Literal[False] = False
    python_grader_runtime_error_details: None = None
    python_grader_server_error: Literal[False] = False
    python_grader_server_error_type: None = None
    sample_parse_error: bool = Field(description="The answer is not JSON, or has no such name.")
    truncated_observation_error: Literal[False] = False
    unresponsive_reward_error: Literal[False] = False


class GraderMetadata(Answer):
    """How an answer was graded."""

    name: str
    type: str
    errors: GraderErrors
    execution_time: float = Field(description="Seconds.")
    scores: dict[str, float] = Field(description="What each grader gave.")
    sampled_model_name: None = None
    token_usage: None = None


class GraderRunObject(Answer):
    """What a grader gave to an answer."""

    reward: float
    sub_rewards: dict[str, float] = Field(description="Of a multi grader: what each of its graders gave.")
    metadata: GraderMetadata
    model_grader_token_usage_per_model: dict[str, int] = Field(
        default_factory=dict, max_length=0, description="No grader asks a model here."
    )


@router.post("/validate")
def validate_grader(body: GraderToValidate, caller: Reader) -> GraderObject:
    """The grader, if it is sound; what is wrong with it is told as an error."""
    return GraderObject(grader=body.grader)


@router.post("/run")
async def run_grader(body: GraderToRun, caller: Reader, server: ServerDep) -> GraderRunObject:
    """What the grader gives to an answer; where it cannot grade it, 0 and the reason in `metadata.errors`."""
    started = time.perf_counter()
    found = await server.grading.grade(caller.project_id, body.grader, body.item, body.model_sample)
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
