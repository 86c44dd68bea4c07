"""Jobs: submitted, previewed, listed, looked at, cancelled, paused, resumed, tried again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from api import submission
from api.answers.answer import Answer
from api.answers.jobs import JobObject, job_object, job_objects
from api.answers.lists import ListOf, page_of
from api.dependencies import Caller, PageDep, Reader, Server, ServerDep, Writer
from api.filtering import METADATA_PARAMETER, wanted_metadata
from api.idempotency import Submitter
from api.submitting import Submission
from core.catalog import job_spec
from core.jobs import asking, store
from core.jobs.inputs import Input
from core.jobs.quotas import Quotas, admit_jobs
from core.jobs.status import TERMINAL, Status
from core.spec import MethodSpec

if TYPE_CHECKING:
    SpecBody = MethodSpec
else:
    SpecBody = Annotated[job_spec(), Body()]

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class EstimateObject(Answer):
    """What a job would take; null where it cannot be told beforehand."""

    steps: int | None
    memory_bytes: int | None = Field(description="Of the process on a CPU, of the device on a GPU, at its highest.")
    artifact_bytes: int | None
    seconds: float | None = Field(description="From the claim to the end, where nothing else runs beside it.")
    device: str | None = Field(description="What the first steps were measured on.")
    note: str | None = Field(description="Why something could not be told.")


class PreviewObject(Answer):
    """A job that was not submitted."""

    object: Literal["job.preview"] = "job.preview"
    spec: dict[str, Any]
    profile: dict[str, Any]
    estimate: EstimateObject
    warnings: list[str] = Field(description="What the job would warn of as it begins.")


@router.post("", status_code=202)
async def submit_job(spec: SpecBody, caller: Writer, server: ServerDep, envelope: Submitter) -> JobObject:
    """Submit a job: a method, a data set, and what the method's spec allows."""
    spec = await with_ids(server, caller, spec)
    verdict = await server.checker.judge(caller.project_id, spec)
    return await server.submissions.ask(Submission(envelope, spec, verdict))


async def with_ids(server: Server, caller: Caller, spec: MethodSpec) -> MethodSpec:
    """The spec with the ids of the models that it calls by their names."""
    return await run_in_threadpool(_with_ids, server, caller, spec) if submission.has_names(spec) else spec


def _with_ids(server: Server, caller: Caller, spec: MethodSpec) -> MethodSpec:
    with server.database.read() as session:
        return submission.with_ids(session, caller.project_id, spec)


@router.post("/preview")
async def preview_job(
    spec: SpecBody,
    caller: Reader,
    server: ServerDep,
    measure: Annotated[bool, Query(description="Whether to make the first steps, to estimate time and memory.")] = True,
) -> PreviewObject:
    """A dry run: the spec with its defaults, the data set's profile, an estimate. Nothing is stored.

    The estimate comes from a short real measurement: the first steps are made here, and what a job would end with is
    told as an error.
    """
    spec = await with_ids(server, caller, spec)
    checked, found = await run_in_threadpool(_look_up, server, caller, spec, measure)
    verdict = await server.checker.judge(caller.project_id, spec)
    verdict.enforce()
    told: Mapping[str, Any] | str = found
    if not isinstance(found, str):
        told = await server.measurer.measure(caller.project_id, spec, found)
    known = {"steps": submission.estimate_steps(spec, checked.profile)}
    nothing = dict.fromkeys(("memory_bytes", "artifact_bytes", "seconds", "device"))
    estimate = EstimateObject(
        **({**nothing, **known, "note": told} if isinstance(told, str) else {**told, "note": None})
    )
    return PreviewObject(
        spec=spec.model_dump(mode="json"),
        profile=checked.profile.as_dict(),
        estimate=estimate,
        warnings=list(verdict.warnings),
    )


def _look_up(
    server: Server, caller: Caller, spec: MethodSpec, should_measure: bool
) -> tuple[submission.Checked, dict[str, Input] | str]:
    """The spec as it would be submitted, and what is to be measured, or why nothing is."""
    with server.database.read() as session:
        checked = submission.check_submission(session, caller.project_id, spec)
        if not should_measure:
            return checked, "not measured"
        return checked, submission.inputs_to_measure(session, caller.project_id, spec)


@router.get("", openapi_extra=METADATA_PARAMETER)
def list_jobs(
    request: Request,
    caller: Reader,
    server: ServerDep,
    page: PageDep,
    status: Annotated[list[Status], Query(description="Only jobs in one of these states.")] = [],  # noqa: B006
    method: Annotated[str | None, Query(max_length=64, description="Only jobs of this method.")] = None,
) -> ListOf[JobObject]:
    """The project's jobs."""
    with server.database.read() as session:
        jobs = store.list_jobs(
            session, caller.project_id, statuses=status, method=method, metadata=wanted_metadata(request), **page.query
        )
        return page_of(job_objects(session, jobs, server.settings), page)


@router.get("/{job_id}")
def get_job(job_id: str, caller: Reader, server: ServerDep) -> JobObject:
    """One job: its state, how far it is, why it waits, what went wrong."""
    return _job(server, caller, job_id)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, caller: Writer, server: ServerDep) -> JobObject:
    """Stop a job; what it learned until then can be downloaded."""
    with server.database.write() as session:
        asking.cancel_job(session, caller.project_id, job_id)
    server.announce(session)
    return _job(server, caller, job_id)


@router.post("/{job_id}/pause")
def pause_job(job_id: str, caller: Writer, server: ServerDep) -> JobObject:
    """Leave a job off: a queued one at once, a running one with a checkpoint, within seconds. No attempt is used up."""
    with server.database.write() as session:
        asking.pause_job(session, caller.project_id, job_id)
    server.announce(session)
    return _job(server, caller, job_id)


@router.post("/{job_id}/resume")
def resume_job(job_id: str, caller: Writer, server: ServerDep) -> JobObject:
    """Queue a paused job, which goes on from its last checkpoint; or take back a pause that has not come yet."""
    with server.database.write() as session:
        job = asking.resume_job(session, caller.project_id, job_id)
    server.announce(session, wake=[job.device])
    return _job(server, caller, job_id)


@router.post("/{job_id}/retry")
def retry_job(job_id: str, caller: Writer, server: ServerDep) -> JobObject:
    """Queue a failed or cancelled job again; it goes on from its last checkpoint."""
    with server.database.write() as session:
        job = store.get_job(session, caller.project_id, job_id)
        if job.status in TERMINAL:
            defaults = Quotas.of_server(server.settings)
            admit_jobs(session, caller.project_id, devices=[job.device], defaults=defaults)
        job = asking.retry_job(session, caller.project_id, job_id)
    server.announce(session, wake=[job.device])
    return _job(server, caller, job_id)


def _job(server: ServerDep, caller: Reader, job_id: str) -> JobObject:
    with server.database.read() as session:
        return job_object(session, store.get_job(session, caller.project_id, job_id), server.settings)
