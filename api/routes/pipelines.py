"""Pipelines: several jobs at once, one taking the weights of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import submission
from api.answers.lists import ListOf, page_of
from api.answers.pipelines import PipelineObject, pipeline_objects
from api.checking import Verdict
from api.dependencies import Caller, PageDep, Reader, Server, ServerDep, Writer
from api.idempotency import Envelope, Submitter, submit_once
from api.routes.jobs import with_ids
from core.catalog import job_spec
from core.errors import WeightworksError
from core.jobs import pipelines
from core.jobs.quotas import Quotas, admit_jobs
from core.spec import Frozen, JobReference, MethodSpec, models_of

router = APIRouter(prefix="/v1/pipelines", tags=["pipelines"])

LocalName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

if TYPE_CHECKING:
    AnySpec = MethodSpec
else:
    AnySpec = job_spec()


class PipelineRequest(Frozen):
    """Job specs by local names; a spec names another's weights by `{"job": "<local name>"}`."""

    model_config = ConfigDict(title="PipelineRequest")

    name: str | None = Field(
        None, min_length=1, max_length=64, pattern=r"^[^\x00]*$", description="What to call the pipeline."
    )
    jobs: Annotated[dict[LocalName, AnySpec], Field(min_length=1, max_length=50)] = Field(
        description="The jobs, in any order."
    )


@router.post("", status_code=202)
async def submit_pipeline(
    body: PipelineRequest, caller: Writer, server: ServerDep, envelope: Submitter
) -> PipelineObject:
    """Submit several jobs at once, all or none; each waits for the weights that it needs."""
    jobs = {name: await with_ids(server, caller, spec) for name, spec in body.jobs.items()}
    body = body.model_copy(update={"jobs": jobs})
    verdicts = {
        name: await server.checker.judge(caller.project_id, spec, local=body.jobs) for name, spec in body.jobs.items()
    }
    return await run_in_threadpool(_submit, server, caller, envelope, body, verdicts)


def _submit(
    server: Server, caller: Caller, envelope: Envelope, body: PipelineRequest, verdicts: Mapping[str, Verdict]
) -> PipelineObject:
    def make(session: Session) -> str:
        devices, defaults = [spec.device for spec in body.jobs.values()], Quotas.of_server(server.settings)
        admit_jobs(session, caller.project_id, devices=devices, defaults=defaults)
        return _create(session, caller, body, verdicts, max_attempts=server.settings.max_attempts)

    pipeline_id, session = submit_once(server, envelope, body.model_dump(mode="json"), make)
    ready = [spec.device for spec in body.jobs.values() if not submission.local_needs(spec, body.jobs)]
    server.announce(session, wake=ready)
    return get_pipeline(pipeline_id, caller, server)


def _create(
    session: Session, caller: Caller, body: PipelineRequest, verdicts: Mapping[str, Verdict], *, max_attempts: int
) -> str:
    pipeline = pipelines.create_pipeline(session, caller.project_id, name=body.name)
    made: dict[str, str] = {}
    for name in submission.in_order_of_need(body.jobs):
        spec = _with_job_ids(body.jobs[name], made)
        try:
            verdicts[name].enforce()
            checked = submission.check_submission(session, caller.project_id, spec)
        except WeightworksError as error:
            error.param = f"jobs.{name}.{error.param}" if error.param else f"jobs.{name}"
            raise
        job = submission.submit(
            session,
            caller.project_id,
            checked,
            max_attempts=max_attempts,
            pipeline_id=pipeline.id,
            pipeline_step=name,
            warnings=verdicts[name].warnings,
        )
        made[name] = job.id
    return pipeline.id


def _with_job_ids(spec: MethodSpec, made: dict[str, str]) -> MethodSpec:
    """The spec with local names replaced by the ids of the jobs that were just made."""
    changes: dict[str, Any] = {
        field: JobReference(job=made[reference.job])
        for field, reference in models_of(spec).items()
        if isinstance(reference, JobReference) and reference.job in made
    }
    return spec.model_copy(update=changes)


@router.get("")
def list_pipelines(caller: Reader, server: ServerDep, page: PageDep) -> ListOf[PipelineObject]:
    """The project's pipelines."""
    with server.database.read() as session:
        found = pipelines.list_pipelines(session, caller.project_id, **page.query)
        return page_of(pipeline_objects(session, found, server.settings), page)


@router.get("/{pipeline_id}")
def get_pipeline(pipeline_id: str, caller: Reader, server: ServerDep) -> PipelineObject:
    """A pipeline, its jobs by their local names."""
    with server.database.read() as session:
        pipeline = pipelines.get_pipeline(session, caller.project_id, pipeline_id)
        return pipeline_objects(session, [pipeline], server.settings)[0]
