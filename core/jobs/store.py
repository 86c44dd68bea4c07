"""Jobs as those who submit and watch them see them: create, get, list, cancel, pause, resume, retry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from sqlalchemy import Select, String, cast, exists, func, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from core.errors import Conflict, NotFound, WeightworksError
from core.jobs.database import read_clock
from core.jobs.ending import end_job
from core.jobs.events import NewEvent, add_event, add_first_events, status_event
from core.jobs.ids import new_id
from core.jobs.models.jobs import Attempt, Dependency, Job, Pipeline
from core.jobs.models.results import Artifact, Checkpoint
from core.jobs.models.submissions import IdempotencyKey
from core.jobs.status import TERMINAL, Status
from core.spec import MethodSpec

Order = Literal["asc", "desc"]


def create_job(
    session: Session,
    *,
    project_id: str,
    spec: MethodSpec,
    max_attempts: int,
    needs: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    **pipeline: Any,
) -> Job:
    """Write a queued job. `needs`: the spec's field to the id of the job whose weights it takes."""
    now = read_clock(session)
    job = new_job(project_id=project_id, spec=spec, max_attempts=max_attempts, now=now, **pipeline)
    write_jobs(session, [(job, needs or {})], now=now, warnings={job.id: warnings})
    return job


def new_job(
    *,
    project_id: str,
    spec: MethodSpec,
    max_attempts: int,
    now: float,
    request: Mapping[str, Any] | None = None,
    pipeline_id: str | None = None,
    pipeline_step: str | None = None,
) -> Job:
    """A queued job that is not written yet. `now`: by the database's clock. `request`: see Job."""
    return Job(
        id=new_id("job"),
        project_id=project_id,
        method=spec.method,
        name=spec.name,
        spec=spec.model_dump(mode="json"),
        tags=dict(spec.metadata),
        device=spec.device,
        priority=spec.priority,
        status=Status.QUEUED,
        created_at=int(now),
        claimable_at=now,
        fence=0,
        attempt=0,
        max_attempts=max_attempts,
        cancel_requested=False,
        metrics={},
        request=None if request is None else dict(request),
        pipeline_id=pipeline_id,
        pipeline_step=pipeline_step,
    )


def write_jobs(
    session: Session,
    jobs: Sequence[tuple[Job, Mapping[str, str]]],
    *,
    now: float,
    warnings: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Write new jobs, each with what it needs, and their first events: a statement a table, however many they are.

    `warnings`: what is to be said of a job, by its id.
    """
    session.add_all(job for job, _ in jobs)
    session.flush()
    for job, needs in jobs:
        for field, needed in needs.items():
            get_job(session, job.project_id, needed, param=field)
            session.add(Dependency(job_id=job.id, field=field, needs_id=needed))
        told = [NewEvent("message", text, "warn") for text in warnings.get(job.id, ())]
        add_first_events(session, job.id, [status_event(job, "The job waits for a worker."), *told], now=now)
    session.flush()
    for job, needs in jobs:
        if needs:
            fail_dependents_of_lost(session, job)


def get_job(
    session: Session, project_id: str, job_id: str, *, param: str | None = "job_id", should_lock: bool = False
) -> Job:
    """The project's job of that id, its row locked until the transaction ends if asked for; raises NotFound."""
    job = session.get(Job, job_id, with_for_update=True if should_lock else None)
    if job is None or job.project_id != project_id:
        raise NotFound(f"there is no job '{job_id}'", param=param)
    return job


def lock_job(session: Session, project_id: str, job_id: str, *, param: str) -> Job:
    """The project's job, which neither ends nor is deleted until the transaction ends; raises NotFound."""
    session.get(Job, job_id, with_for_update={"read": True})
    return get_job(session, project_id, job_id, param=param)


def list_jobs(
    session: Session,
    project_id: str,
    *,
    statuses: Sequence[Status] = (),
    method: str | None = None,
    metadata: Mapping[str, str] | None = None,
    has_metadata: bool | None = None,
    pipeline_id: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> list[Job]:
    """The project's jobs by (created_at, id), after the one named; raises NotFound for an unknown cursor."""
    query = select(Job).where(Job.project_id == project_id)
    if method is not None:
        query = query.where(Job.method == method)
    if pipeline_id is not None:
        query = query.where(Job.pipeline_id == pipeline_id)
    if has_metadata is not None:
        query = query.where((cast(Job.tags, String) != "{}") == has_metadata)
    for key, value in (metadata or {}).items():
        query = query.where(_has_tag(session, key, value))
    cursor = get_job(session, project_id, after, param="after") if after else None
    if not statuses and method is None:
        return list(session.scalars(page(query, Job, cursor=cursor, limit=limit, order=order)))
    found: list[Any] = []
    for status in set(statuses or Status):  # each is a stretch of an index, in order
        keys: Any = query.where(Job.status == status).with_only_columns(Job.created_at, Job.id)
        found += session.execute(page(keys, Job, cursor=cursor, limit=limit, order=order))
    ids = [key.id for key in sorted(found, reverse=order == "desc")[:limit]]
    rows = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(ids)))} if ids else {}
    return [rows[job_id] for job_id in ids]


def _has_tag(session: Session, key: str, value: str) -> Any:
    if session.get_bind().dialect.name == "postgresql":
        return Job.tags[key].as_string() == value
    pairs = func.json_each(Job.tags).table_valued("key", "value")  # a path cannot name a key that holds a quote
    return exists(select(1).select_from(pairs).where(pairs.c.key == key, pairs.c.value == value))


def page(query: Select[Any], table: Any, *, cursor: Any, limit: int, order: Order) -> Select[Any]:
    """`query` in order of (created_at, id), from behind `cursor`, `limit` rows long."""
    descending = order == "desc"
    if cursor is not None:
        place, edge = tuple_(table.created_at, table.id), tuple_(cursor.created_at, cursor.id)
        query = query.where(place < edge if descending else place > edge)
    by = (table.created_at.desc(), table.id.desc()) if descending else (table.created_at, table.id)
    return query.order_by(*by).limit(limit)


def cancel_job(session: Session, project_id: str, job_id: str) -> Job:
    """Cancel at once what does not run; ask the worker to stop what does. Raises Conflict if the job has ended."""
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status in TERMINAL:
        raise Conflict(f"the job is {job.status} already: it cannot be cancelled", param="job_id")
    if job.status is Status.RUNNING:
        job.cancel_requested = True
        return job
    was = "before it ran" if job.fence == 0 else f"while it was {job.status}"
    end_job(session, job, Status.CANCELLED)
    _tell_status(session, job, f"The job was cancelled {was}.")
    fail_dependents(session, job)
    return job


def pause_job(session: Session, project_id: str, job_id: str) -> Job:
    """Pause at once what is queued; ask the worker to leave off what runs. Raises Conflict in any other state."""
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status is Status.QUEUED:
        job.status = Status.PAUSED
        _tell_status(session, job, "The job was paused.")
    elif job.status is not Status.RUNNING:
        raise Conflict(f"the job is {job.status}: only a queued or running job can be paused", param="job_id")
    elif job.cancel_requested:
        raise Conflict("the job is running and about to be cancelled: it cannot be paused", param="job_id")
    else:
        job.pause_requested = True
    return job


def resume_job(session: Session, project_id: str, job_id: str) -> Job:
    """Queue a paused job, or take back a pause that was not acted upon. Raises Conflict in any other state.

    A job that goes on from a checkpoint does so from its last one.
    """
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status is Status.PAUSED:
        job.status = Status.QUEUED
        job.claimable_at = read_clock(session)
        _tell_status(session, job, "The job was resumed; it waits for a worker.")
    elif not job.pause_requested:
        raise Conflict(f"the job is {job.status}: only a paused job can be resumed", param="job_id")
    job.pause_requested = False
    return job


def retry_job(session: Session, project_id: str, job_id: str) -> Job:
    """Queue a failed or cancelled job again, from its last checkpoint; raises Conflict in any other state."""
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status not in (Status.FAILED, Status.CANCELLED):
        raise Conflict(f"the job is {job.status}: only a failed or cancelled job can be retried", param="job_id")
    job.status, job.finished_at, job.error = Status.QUEUED, None, None
    job.attempt, job.cancel_requested, job.pause_requested = 0, False, False
    job.claimable_at = read_clock(session)
    _tell_status(session, job, "The job was queued again.")
    fail_dependents_of_lost(session, job)
    return job


def fail_dependents(session: Session, job: Job) -> None:
    """Fail every job that waits, however far along the chain, for weights that will not come."""
    dependents = select(Dependency.job_id).where(Dependency.needs_id == job.id)
    waiting = select(Job).where(Job.id.in_(dependents), Job.status.in_([Status.QUEUED, Status.PAUSED]))
    for dependent in session.scalars(waiting.with_for_update()).all():
        _fail_for(session, dependent, job)


def fail_dependents_of_lost(session: Session, job: Job) -> None:
    """Note whether `job` has to wait for weights; fail it if something that it needs has already ended without.

    What it needs is locked: whoever fails it meanwhile waits, and finds `job` among the dependents then.
    """
    needed = select(Job).join(Dependency, Dependency.needs_id == Job.id).where(Dependency.job_id == job.id)
    locked = needed.order_by(Job.id).with_for_update(read=True, of=Job).execution_options(populate_existing=True)
    found = session.scalars(locked).all()
    job.lacks_weights = any(one.status is not Status.SUCCEEDED for one in found)
    lost = [one for one in found if one.status in (Status.FAILED, Status.CANCELLED)]
    if lost:
        _fail_for(session, job, lost[0])


def free_dependents(session: Session, job: Job) -> None:
    """Have those that waited for this job's weights, and lack no others now, be claimable.

    They are locked first: when two jobs that one needs succeed at once, the later one sees that the other has.
    """
    dependents = select(Dependency.job_id).where(Dependency.needs_id == job.id)
    waiting = select(Job.id).where(Job.id.in_(dependents), Job.status.in_([Status.QUEUED, Status.PAUSED]))
    ids = session.scalars(waiting.order_by(Job.id).with_for_update()).all()
    if not ids:
        return
    needed = aliased(Job)
    lacking = select(Dependency.job_id).join(needed, Dependency.needs_id == needed.id)
    lacking = lacking.where(Dependency.job_id == Job.id, needed.status != Status.SUCCEEDED)
    freed = update(Job).where(Job.id.in_(ids), ~lacking.exists()).values(lacks_weights=False)
    session.execute(freed.execution_options(synchronize_session=False))


def _fail_for(session: Session, job: Job, needed: Job) -> None:
    error = WeightworksError(
        f"needs the weights of {needed.id}, which {needed.status}; retry that job, then this one",
        code="dependency_failed",
    )
    job.error = error.as_dict()
    end_job(session, job, Status.FAILED)
    _tell_status(session, job, f"The job failed: it {error.message}.", level="error")
    fail_dependents(session, job)


def _tell_status(session: Session, job: Job, message: str, *, level: str = "info") -> None:
    session.flush()
    add_event(session, job.id, fence=job.fence, event=status_event(job, message, level))


def needs_of(session: Session, job_id: str) -> dict[str, Job]:
    """The jobs whose weights this one takes, by field."""
    query = select(Dependency.field, Job).join(Job, Dependency.needs_id == Job.id).where(Dependency.job_id == job_id)
    return {field: job for field, job in session.execute(query)}  # noqa: C416 - rows are not pairs to mypy


def list_attempts(session: Session, job_id: str) -> list[Attempt]:
    """Every claim of the job, in order."""
    return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.fence)))


def list_checkpoints(session: Session, job_id: str) -> list[Checkpoint]:
    """The job's checkpoints, newest first."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return list(session.scalars(query.order_by(Checkpoint.fence.desc(), Checkpoint.step.desc())))


def list_artifacts(session: Session, job_id: str) -> list[Artifact]:
    """The job's published files, by path."""
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.path)))


def create_pipeline(session: Session, project_id: str, *, name: str | None) -> Pipeline:
    """Write a pipeline; its jobs are written in the same transaction."""
    pipeline = Pipeline(id=new_id("pipeline"), project_id=project_id, name=name, created_at=int(read_clock(session)))
    session.add(pipeline)
    session.flush()
    return pipeline


def get_pipeline(session: Session, project_id: str, pipeline_id: str, *, param: str = "pipeline_id") -> Pipeline:
    """The project's pipeline; raises NotFound."""
    pipeline = session.get(Pipeline, pipeline_id)
    if pipeline is None or pipeline.project_id != project_id:
        raise NotFound(f"there is no pipeline '{pipeline_id}'", param=param)
    return pipeline


def list_pipelines(
    session: Session, project_id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> list[Pipeline]:
    """The project's pipelines by (created_at, id)."""
    cursor = get_pipeline(session, project_id, after, param="after") if after else None
    query = select(Pipeline).where(Pipeline.project_id == project_id)
    return list(session.scalars(page(query, Pipeline, cursor=cursor, limit=limit, order=order)))


def jobs_of_pipelines(session: Session, pipeline_ids: Sequence[str]) -> list[Job]:
    """The pipelines' jobs, in the order in which they were written."""
    query = select(Job).where(Job.pipeline_id.in_(pipeline_ids))
    return list(session.scalars(query.order_by(Job.created_at, Job.id)))


def find_submission(session: Session, project_id: str, key: str, body_sha256: str) -> str | None:
    """What an earlier request with this Idempotency-Key made; raises Conflict if its body was another."""
    row = session.get(IdempotencyKey, (project_id, key))
    if row is None:
        return None
    if row.body_sha256 != body_sha256:
        raise Conflict("this Idempotency-Key was used with another body; use a new key", code="idempotency_key_reused")
    return row.resource_id


def remember_submission(
    session: Session, project_id: str, key: str, body_sha256: str, resource_id: str, *, now: float
) -> None:
    """Note what this Idempotency-Key made, to be written in the same transaction."""
    session.add(
        IdempotencyKey(
            project_id=project_id, key=key, body_sha256=body_sha256, resource_id=resource_id, created_at=int(now)
        )
    )
