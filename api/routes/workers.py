"""Workers: who could take what waits, and which of them are to take no more."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy.orm import Session

from api.answers.answer import Answer
from api.answers.lists import ListOf, page_of_all
from api.dependencies import Caller, Operator, PageDep, Reader, ServerDep
from core.jobs import workers
from core.jobs.models.jobs import Job
from core.jobs.models.workers import WorkerSlot

router = APIRouter(prefix="/v1/workers", tags=["workers"])


class WorkerObject(Answer):
    """A slot of a worker: it trains one job at a time."""

    id: str
    object: Literal["worker"] = "worker"
    host: str
    has_gpu: bool
    started_at: int
    seen_at: int
    drain_requested: bool
    is_draining: bool = Field(description="It takes no new job.")
    is_busy: bool
    job: str | None = Field(description="The job it holds; null if that is another project's.")


@router.get("")
def list_workers(caller: Reader, server: ServerDep, page: PageDep) -> ListOf[WorkerObject]:
    """The workers that run, a slot each, with the job that each holds."""
    with server.database.read() as session:
        found = _workers(session, caller, server)
    return page_of_all(found[::-1], page, noun="worker")


@router.post("/{worker_id}/drain")
def drain_worker(worker_id: str, caller: Operator, server: ServerDep) -> WorkerObject:
    """Have a worker give its job back, with a checkpoint and without using up an attempt, and take no more."""
    return _ask(worker_id, caller, server, should_drain=True)


@router.post("/{worker_id}/resume")
def resume_worker(worker_id: str, caller: Operator, server: ServerDep) -> WorkerObject:
    """Have a drained worker take jobs again."""
    return _ask(worker_id, caller, server, should_drain=False)


def _ask(worker_id: str, caller: Caller, server: ServerDep, *, should_drain: bool) -> WorkerObject:
    with server.database.write() as session:
        workers.ask_to_drain(session, worker_id, should_drain=should_drain)
        row = session.get_one(WorkerSlot, worker_id, populate_existing=True)
        return _worker_object(row, workers.jobs_held(session, [worker_id]).get(worker_id), caller)


def _workers(session: Session, caller: Caller, server: ServerDep) -> list[WorkerObject]:
    found = workers.living_workers(session, beat_seconds=server.settings.renew_seconds)
    held = workers.jobs_held(session, [row.id for row in found])
    return [_worker_object(row, held.get(row.id), caller) for row in found]


def _worker_object(row: WorkerSlot, job: Job | None, caller: Caller) -> WorkerObject:
    is_shown = job is not None and (caller.is_operator or job.project_id == caller.project_id)
    return WorkerObject(
        id=row.id,
        host=row.host,
        has_gpu=row.has_gpu,
        started_at=int(row.started_at),
        seen_at=int(row.seen_at),
        drain_requested=row.drain_requested,
        is_draining=row.is_draining,
        is_busy=job is not None,
        job=job.id if job is not None and is_shown else None,
    )
