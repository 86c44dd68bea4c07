"""Jobs as those who submit and watch them see them: written, found, and listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import String, cast, exists, func, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.database import read_clock
from core.jobs.dependencies import fail_dependents_of_lost
from core.jobs.events import NewEvent, add_first_events, status_event
from core.jobs.ids import new_id
from core.jobs.models.jobs import Dependency, Job
from core.jobs.pages import Order, page
from core.jobs.status import Status
from core.spec import MethodSpec


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
