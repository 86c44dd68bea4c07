"""Watching a job: events, metrics, logs."""

from __future__ import annotations

import csv
import io
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.dependencies import Caller, PageDep, Reader, Server, ServerDep
from api.live import stream
from api.presenting import event_object, page_of
from api.routes.files import Responses
from api.schemas import EventObject, ListOf, LogLine, MetricsObject, SeriesObject
from core.jobs import store
from core.jobs.events import EventId, list_events
from core.jobs.models import Event

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["watching"])

MAX_POINTS = 5000
EVENT_STREAM: Responses = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
CSV: Responses = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
TEXT: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/events", response_model=ListOf[EventObject], responses=EVENT_STREAM)
async def list_job_events(
    job_id: str,
    request: Request,
    caller: Reader,
    server: ServerDep,
    page: PageDep,
    type: Annotated[list[str], Query(description="Only events of these types.")] = [],  # noqa: B006
    last_event_id: Annotated[str | None, Header(max_length=64, description="Go on behind this event.")] = None,
) -> Any:
    """A page of events; with `Accept: text/event-stream`, all of them live, ending with `data: [DONE]`."""
    if "text/event-stream" not in request.headers.get("accept", ""):
        return await run_in_threadpool(_page, server, caller, job_id, page, type)
    await run_in_threadpool(_check_exists, server, caller, job_id)
    wanted = last_event_id or page.after
    events = stream(server, job_id, after=EventId.parse(wanted) if wanted else None)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _check_exists(server: Server, caller: Caller, job_id: str) -> None:
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)


def _page(server: Server, caller: Caller, job_id: str, page: PageDep, types: list[str]) -> ListOf[EventObject]:
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
    max_points: Annotated[int, Query(ge=2, le=MAX_POINTS, description="Points a series at most.")] = 1000,
    since_step: Annotated[int, Query(ge=0, description="Only from this step on.")] = 0,
    format: Annotated[str | None, Query(pattern="^(json|csv)$", description="json or csv.")] = None,
) -> Any:
    """The metrics as series; longer ones are thinned, keeping each stretch's smallest and largest value."""
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        events = list_events(session, job_id, types=["metrics"], limit=1_000_000)
    wanted = None if names is None else {name.strip() for name in names.split(",")}
    series = {
        name: thinned(points, max_points)
        for name, points in gather(events, since_step=since_step).items()
        if wanted is None or name in wanted
    }
    if format == "csv" or (format is None and "text/csv" in request.headers.get("accept", "")):
        return PlainTextResponse(as_csv(series), media_type="text/csv")
    return MetricsObject(
        series=[
            SeriesObject(name=name, steps=[step for step, _ in points], values=[value for _, value in points])
            for name, points in series.items()
        ]
    )


Points = list[tuple[int, float]]


def gather(events: list[Event], *, since_step: int) -> dict[str, Points]:
    """Series by name. What an attempt measured behind the checkpoint that the next one went on from is left out."""
    series: dict[str, dict[int, float]] = {}
    for event in events:
        step = event.data["step"]
        for name, value in event.data["values"].items():
            points = series.setdefault(name, {})
            while points and next(reversed(points)) > step:
                points.popitem()
            points[step] = value
    return {name: [point for point in points.items() if point[0] >= since_step] for name, points in series.items()}


def thinned(points: Points, most: int) -> Points:
    """At most `most` points: first and last, and the extremes of equal stretches between."""
    if len(points) <= most:
        return points
    inner = points[1:-1]
    stretches = max(1, (most - 2) // 2)
    kept = [points[0]]
    for index in range(stretches):
        stretch = inner[len(inner) * index // stretches : len(inner) * (index + 1) // stretches]
        extremes = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(extremes)
    return [*kept, points[-1]][:most] if most > 3 else [points[0], points[-1]]


def as_csv(series: dict[str, Points]) -> str:
    """One row a step, one column a metric."""
    rows: dict[int, dict[str, float]] = {}
    for name, points in series.items():
        for step, value in points:
            rows.setdefault(step, {})[name] = value
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *series], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **rows[step]} for step in sorted(rows))
    return text.getvalue()


@router.get("/logs", response_model=ListOf[LogLine], responses=TEXT)
def list_logs(
    job_id: str,
    request: Request,
    caller: Reader,
    server: ServerDep,
    attempt: Annotated[int | None, Query(ge=1, description="Only this attempt's.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 1000,
    after: Annotated[str | None, Query(max_length=64, description="Id of the last one seen.")] = None,
) -> Any:
    """The trainer's own output, in order; with `Accept: text/plain`, as it was printed."""
    is_text = "text/plain" in request.headers.get("accept", "")
    place = EventId.parse(after) if after else None
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        events = list_events(session, job_id, types=["log"], after=place, limit=1_000_000 if is_text else limit + 1)
    lines = [
        LogLine(
            id=f"{event.fence}-{event.seq}",
            attempt=event.data.get("attempt", event.fence),
            created_at=event.created_at,
            line=event.message,
        )
        for event in events
    ]
    if attempt is not None:
        lines = [line for line in lines if line.attempt == attempt]
    if is_text:
        return Response("".join(f"{line.line}\n" for line in lines), media_type="text/plain; charset=utf-8")
    shown = lines[:limit]
    return ListOf[LogLine](
        data=shown,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=len(lines) > limit,
    )
