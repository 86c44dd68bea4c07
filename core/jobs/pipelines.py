"""Pipelines: jobs that are written together."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.database import read_clock
from core.jobs.ids import new_id
from core.jobs.models.jobs import Job, Pipeline
from core.jobs.pages import Order, page


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
