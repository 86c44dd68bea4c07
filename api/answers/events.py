"""Events of jobs as the API answers them, and the samples that some tell of."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.answers.answer import Answer
from api.answers.numbers import finite
from core.jobs.models.jobs import Event


class EventObject(Answer):
    """Something that happened to a job."""

    id: str = Field(description="<fence>-<seq>: its place in the job's stream.")
    object: Literal["job.event"] = "job.event"
    type: str = Field(description="status, message, metrics, checkpoint, sample or log.")
    level: str
    message: str
    created_at: float
    data: dict[str, Any]


class SampleObject(Answer):
    """A picture or a text that a job made at a step, for people to see what it learns."""

    id: str = Field(description="Its event's.")
    object: Literal["job.sample"] = "job.sample"
    created_at: float
    job: str
    name: str = Field(description="What is shown under one name, step after step, belongs together.")
    step: int
    caption: str
    media_type: str
    bytes: int
    sha256: str


def event_object(event: Event) -> EventObject:
    """An event."""
    return EventObject(
        id=f"{event.fence}-{event.seq}",
        type=event.type,
        level=event.level,
        message=event.message,
        created_at=event.created_at,
        data=finite_data(event.data),
    )


def finite_data(data: dict[str, Any]) -> dict[str, Any]:
    """An event's data as JSON has it."""
    return {**data, "values": finite(data["values"])} if "values" in data else data


def sample_object(event: Event) -> SampleObject:
    """A sample, told by the event of its making."""
    data = event.data
    return SampleObject(
        id=f"{event.fence}-{event.seq}",
        created_at=event.created_at,
        job=event.job_id,
        name=data["name"],
        step=data["step"],
        caption=event.message,
        media_type=data["media_type"],
        bytes=data["bytes"],
        sha256=data["sha256"],
    )
