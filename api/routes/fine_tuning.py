"""Fine-tuning jobs as the openai clients speak of them; each is also at /v1/jobs, under the same id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.answers.lists import ListOf, page_of
from api.dependencies import Caller, LongPageDep, Page, Reader, Server, ServerDep, Writer
from api.filtering import METADATA_PARAMETER, wanted_metadata
from api.fine_tuning.creating import create_job
from api.fine_tuning.events import TYPES, fine_tuning_event_object, parse_event_id, stream_events, total_steps
from api.fine_tuning.presenting import fine_tuning_job_objects
from api.fine_tuning.requests import FineTuningRequest, JobRequest
from api.fine_tuning.schemas import FineTuningEventObject, FineTuningJobObject
from api.idempotency import Submitter, retry_count
from api.live import event_stream
from api.routes.watching import EVENT_STREAM, accepts
from core.errors import Conflict, NotFound
from core.jobs import asking, store
from core.jobs.events import list_events
from core.jobs.models.jobs import Job
from core.jobs.status import Status

if TYPE_CHECKING:
    AskedBody = JobRequest
else:
    AskedBody = FineTuningRequest

METHOD = "fine_tuning"

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])


@router.post("")
async def create_fine_tuning_job(
    asked: AskedBody, caller: Writer, server: ServerDep, envelope: Submitter
) -> FineTuningJobObject:
    """Submit a job; beside what the clients list, it takes settings of the method `fine_tuning` by their own names.

    `auto` becomes a number at once, by the number of examples and of their tokens; the answer has it.
    """
    job_id = await create_job(server, envelope, asked)
    return await run_in_threadpool(_shown, server, caller, job_id)


@router.get("", openapi_extra=METADATA_PARAMETER)
def list_fine_tuning_jobs(
    request: Request, caller: Reader, server: ServerDep, page: LongPageDep
) -> ListOf[FineTuningJobObject]:
    """The project's jobs of method fine_tuning, wherever they were submitted; `metadata=null`: those without any."""
    with server.database.read() as session:
        jobs = store.list_jobs(
            session,
            caller.project_id,
            method=METHOD,
            metadata=wanted_metadata(request),
            has_metadata=False if request.query_params.get("metadata") == "null" else None,
            **page.query,
        )
        return page_of(fine_tuning_job_objects(session, jobs), page)


@router.get("/{job_id}")
def get_fine_tuning_job(job_id: str, caller: Reader, server: ServerDep) -> FineTuningJobObject:
    """One job."""
    return _shown(server, caller, job_id)


@router.post("/{job_id}/cancel")
def cancel_fine_tuning_job(job_id: str, request: Request, caller: Writer, server: ServerDep) -> FineTuningJobObject:
    """Stop a job: one that runs is `cancelled` within seconds, once its worker has let go of it."""
    return _changed(server, caller, job_id, asking.cancel_job, request, reached=[Status.CANCELLED])


@router.post("/{job_id}/pause")
def pause_fine_tuning_job(job_id: str, request: Request, caller: Writer, server: ServerDep) -> FineTuningJobObject:
    """Leave a job off: a queued one at once, one that runs with a checkpoint, within seconds."""
    return _changed(server, caller, job_id, asking.pause_job, request, reached=[Status.PAUSED])


@router.post("/{job_id}/resume")
def resume_fine_tuning_job(job_id: str, request: Request, caller: Writer, server: ServerDep) -> FineTuningJobObject:
    """Queue a paused job, which goes on from its last checkpoint; or take back a pause that has not come yet."""
    reached = [Status.QUEUED, Status.RUNNING]
    return _changed(server, caller, job_id, asking.resume_job, request, reached=reached, should_wake=True)


def _changed(
    server: Server,
    caller: Caller,
    job_id: str,
    change: Callable[[Session, str, str], Job],
    request: Request,
    *,
    reached: Sequence[Status],
    should_wake: bool = False,
) -> FineTuningJobObject:
    """The job after the change; a client that heard no answer sends it again, and finds what it has `reached`."""
    with server.database.write() as session:
        job = fine_tuning_job(session, caller, job_id)
        try:
            change(session, caller.project_id, job_id)
        except Conflict:
            if not retry_count(request) or job.status not in reached:
                raise
    server.announce(session, wake=[job.device] if should_wake else [])
    return _shown(server, caller, job_id)


def _shown(server: Server, caller: Caller, job_id: str) -> FineTuningJobObject:
    with server.database.read() as session:
        return fine_tuning_job_objects(session, [fine_tuning_job(session, caller, job_id)])[0]


def fine_tuning_job(session: Session, caller: Caller, job_id: str) -> Job:
    """The project's job of that id; raises NotFound, saying where a job of another method is."""
    job = store.get_job(session, caller.project_id, job_id)
    if job.method != METHOD:
        raise NotFound(f"{job_id} is a job of method {job.method}: it is at /v1/jobs/{job_id}", param="job_id")
    return job


@router.get("/{job_id}/events", response_model=ListOf[FineTuningEventObject], responses=EVENT_STREAM)
async def list_fine_tuning_events(
    job_id: str,
    request: Request,
    caller: Reader,
    server: ServerDep,
    page: LongPageDep,
    stream: Annotated[bool, Query(description="All of them live, as with `Accept: text/event-stream`.")] = False,
    last_event_id: Annotated[str | None, Header(max_length=128, description="Go on behind this event.")] = None,
) -> Any:
    """A page of events, the newest first; or all of them live, in order, ending with `data: [DONE]`."""
    if not stream and not accepts(request, "text/event-stream"):
        return await run_in_threadpool(_page, server, caller, job_id, page)
    await run_in_threadpool(_shown, server, caller, job_id)
    wanted = last_event_id or page.after
    events = stream_events(server, job_id, after=parse_event_id(wanted) if wanted else None)
    return event_stream(events)


def _page(server: Server, caller: Caller, job_id: str, page: Page) -> ListOf[FineTuningEventObject]:
    after = parse_event_id(page.after) if page.after else None
    with server.database.read() as session:
        total = total_steps(fine_tuning_job(session, caller, job_id))
        found = list_events(
            session, job_id, after=after, types=TYPES, limit=page.limit + 1, newest_first=page.order == "desc"
        )
    return page_of([fine_tuning_event_object(event, total=total) for event in found], page)
