"""A job's events in the fine-tuning API's words: the same, in the same order, under ids that no other job has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.answers.numbers import finite
from api.dependencies import Server
from api.fine_tuning.schemas import FineTuningEventObject
from api.live import DONE, follow
from core.errors import InvalidRequest
from core.jobs.events import EventId
from core.jobs.models.jobs import Event, Job

PREFIX = "ftevent-"
TYPES = ("status", "message", "metrics", "checkpoint", "sample")  # what the trainer prints is at /v1/jobs/{id}/logs
LEVELS = {"info": "info", "warn": "warn", "error": "error"}
METRICS = {
    "loss": "train_loss",
    "token_accuracy": "train_mean_token_accuracy",
    "valid_token_accuracy": "valid_mean_token_accuracy",
}
# No blank line follows: the openai client takes one, behind an event that had an id, for an event without content.
KEEP_ALIVE = b": still here\n"


def parse_event_id(text: str, *, param: str = "after") -> EventId:
    """The place of an event in its job's stream; raises InvalidRequest, naming `param`."""
    place = "-".join(text.split("-")[-2:])
    if not text.startswith(PREFIX):
        raise InvalidRequest(f"'{text[:80]}' is not an event id: take one that this job's events have", param=param)
    return EventId.parse(place, param=param)


def metrics_in_its_words(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics as the fine-tuning API calls them; those that it has no name for keep theirs."""
    return {METRICS.get(name, name): value for name, value in finite(values).items()}


def fine_tuning_event_object(event: Event, *, total: int | None) -> FineTuningEventObject:
    """An event; `total`: how many steps its job makes, None where that is not known yet."""
    is_metrics = event.type == "metrics"
    data = dict(event.data)
    if is_metrics:
        data = {"step": data["step"], "total_steps": total, **metrics_in_its_words(data["values"])}
    return FineTuningEventObject(
        id=f"{PREFIX}{event.job_id.removeprefix('job-')}-{event.fence}-{event.seq}",
        created_at=int(event.created_at),
        level=LEVELS.get(event.level, "info"),
        message=_message(event, data),
        type="metrics" if is_metrics else "message",
        data=data,
    )


def _message(event: Event, data: Mapping[str, Any]) -> str:
    """What it says to people; of some events only their data tell."""
    if event.type == "metrics":
        return _told(data)
    if event.type == "checkpoint":
        return f"Checkpoint created at step {data['step']}"
    if event.type == "sample":
        return f"Step {data['step']}: {data['name']} {event.message}".rstrip()
    return event.message


def _told(data: Mapping[str, Any]) -> str:
    of_total = f"/{data['total_steps']}" if data["total_steps"] else ""
    losses = {"training loss": data.get("train_loss"), "validation loss": data.get("valid_loss")}
    told = [f"{name}={value:.4f}" for name, value in losses.items() if value is not None]
    return f"Step {data['step']}{of_total}" + (f": {', '.join(told)}" if told else "")


async def stream_events(server: Server, job_id: str, *, after: EventId | None) -> AsyncIterator[bytes]:
    """Every event behind `after` as server-sent events, then [DONE]."""
    total: int | None = None
    async for events in follow(server, job_id, after=after):
        if events is None:
            yield DONE
            continue
        if total is None and any(event.type == "metrics" for event in events):
            total = await run_in_threadpool(_total_steps, server, job_id)
        if encoded := _as_sse(events, total):
            yield encoded
        elif not events:
            yield KEEP_ALIVE


def _as_sse(events: Iterable[Event], total: int | None) -> bytes:
    shown = [fine_tuning_event_object(event, total=total) for event in events if event.type in TYPES]
    return "".join(f"id: {one.id}\nevent: {one.type}\ndata: {one.model_dump_json()}\n\n" for one in shown).encode()


def total_steps(job: Job) -> int | None:
    """How many steps the job makes, as its worker last said."""
    return (job.progress or {}).get("total")


def _total_steps(server: Server, job_id: str) -> int | None:
    with server.database.read() as session:
        job = session.get(Job, job_id)
        return None if job is None else total_steps(job)
