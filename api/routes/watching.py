"""Watching a job: events, metrics, logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from api.answers.answer import Answer
from api.answers.events import EventObject, event_object
from api.answers.lists import ListOf, page_of
from api.answers.numbers import finite_value
from api.dependencies import Caller, Page, PageDep, Reader, Server, ServerDep
from api.downloads import Responses
from api.live import event_stream, stream
from api.series import as_csv, gather, thinned
from core.jobs import store
from core.jobs.events import EventId, each_data, list_events
from core.jobs.models.jobs import Event

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["watching"])

LINES_AT_ONCE = 2000
SSE = """Every event as it happens: `id: <fence>-<seq>`, `event:` its type, `data:` the event as JSON; `data: [DONE]` at
the end. Connect again with `Last-Event-ID` to go on without gap or repeat."""
EVENT_STREAM: Responses = {200: {"content": {"text/event-stream": {"schema": {"type": "string", "description": SSE}}}}}
CSV: Responses = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
TEXT: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

EventTypes = Annotated[
    list[Literal["status", "message", "metrics", "checkpoint", "sample", "log"]],
    Query(description="Only events of these types."),
]


class SeriesObject(Answer):
    """One metric over the steps."""

    name: str
    points: int = Field(description="How many there are before downsampling.")
    steps: list[int]
    values: list[float | None]


class MetricsObject(Answer):
    """A job's metrics as series."""

    object: Literal["job.metrics"] = "job.metrics"
    job: str
    downsampling: Literal["min_max"] | None = Field(
        description="min_max: longer series were cut into stretches, and the extremes of each were kept."
    )
    series: list[SeriesObject]


class LogLine(Answer):
    """A line of the trainer's own output."""

    id: str
    object: Literal["job.log"] = "job.log"
    attempt: int
    created_at: float
    line: str


@router.get("/events", response_model=ListOf[EventObject], responses=EVENT_STREAM)
async def list_job_events(
    job_id: str,
    request: Request,
    caller: Reader,
    server: ServerDep,
    page: PageDep,
    type: EventTypes = [],  # noqa: B006
    last_event_id: Annotated[str | None, Header(max_length=64, description="Go on behind this event.")] = None,
) -> Any:
    """A page of events; with `Accept: text/event-stream`, all of them live, ending with `data: [DONE]`."""
    if not accepts(request, "text/event-stream"):
        return await run_in_threadpool(_page, server, caller, job_id, page, type)
    await run_in_threadpool(_check_exists, server, caller, job_id)
    wanted = last_event_id or page.after
    events = stream(server, job_id, after=EventId.parse(wanted) if wanted else None)
    return event_stream(events)


def accepts(request: Request, media_type: str) -> bool:
    """Whether the client asks for this media type by its name, perhaps in a line beside its usual one."""
    return any(media_type in accept.lower() for accept in request.headers.getlist("accept"))


def _check_exists(server: Server, caller: Caller, job_id: str) -> None:
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)


def _page(server: Server, caller: Caller, job_id: str, page: Page, types: Sequence[str]) -> ListOf[EventObject]:
    after = EventId.parse(page.after) if page.after else None
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        found = list_events(
            session, job_id, after=after, types=types, limit=page.limit + 1, newest_first=page.order == "desc"
        )
    return page_of([event_object(event) for event in found], page)


@router.get("/metrics", response_model=MetricsObject, responses=CSV)
def get_metrics(
    job_id: str,
    request: Request,
    caller: Reader,
    server: ServerDep,
    names: Annotated[str | None, Query(max_length=1000, description="Only these metrics, comma-separated.")] = None,
    max_points: Annotated[int, Query(ge=4, le=100_000, description="Points a series at most.")] = 1000,
    since_step: Annotated[int, Query(ge=0, le=2**62, description="Only from this step on.")] = 0,
    format: Annotated[Literal["json", "csv"] | None, Query(description="Instead of the Accept header.")] = None,
) -> Any:
    """The metrics as series; longer ones are thinned, keeping each stretch's smallest and largest value."""
    wanted = None if names is None else {name.strip() for name in names.split(",")}
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        whole = gather(each_data(session, job_id, "metrics"), names=wanted, since_step=since_step)
    series = {name: thinned(points, max_points) for name, points in whole.items()}
    if format == "csv" or (format is None and accepts(request, "text/csv")):
        return Response(as_csv(series), media_type="text/csv")
    shown = [
        SeriesObject(
            name=name,
            points=len(whole[name]),
            steps=[step for step, _ in points],
            values=[finite_value(value) for _, value in points],
        )
        for name, points in series.items()
    ]
    is_thinned = any(len(points) < len(whole[name]) for name, points in series.items())
    return MetricsObject(job=job_id, downsampling="min_max" if is_thinned else None, series=shown)


@router.get("/logs", response_model=ListOf[LogLine], responses=TEXT)
def list_logs(
    job_id: str,
    request: Request,
    caller: Reader,
    server: ServerDep,
    attempt: Annotated[int | None, Query(ge=1, le=2**31, description="Only this attempt's.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many lines at most.")] = 100,
    after: Annotated[str | None, Query(max_length=64, description="Id of the last one seen.")] = None,
) -> Any:
    """The trainer's own output, in order; with `Accept: text/plain`, all of it as it was printed."""
    place = EventId.parse(after) if after else EventId()
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        if not accepts(request, "text/plain"):
            events = list_events(session, job_id, types=["log"], after=place, limit=limit + 1, attempt=attempt)
            return page_of([_line(event) for event in events], Page(limit=limit))
    lines = _all_lines(server, job_id, attempt, place)
    return StreamingResponse(lines, media_type="text/plain", headers={"Cache-Control": "no-store"})


def _line(event: Event) -> LogLine:
    return LogLine(
        id=f"{event.fence}-{event.seq}",
        attempt=event.data.get("attempt", event.fence),
        created_at=event.created_at,
        line=event.message,
    )


def _all_lines(server: Server, job_id: str, attempt: int | None, place: EventId) -> Iterator[str]:
    while True:
        with server.database.read() as session:
            events = list_events(session, job_id, types=["log"], after=place, limit=LINES_AT_ONCE, attempt=attempt)
        if not events:
            return
        place = EventId(events[-1].fence, events[-1].seq)
        yield "".join(f"{event.message}\n" for event in events)
