"""Whose turn it is: the project that runs the fewest jobs, then the one whose last claim is longest ago."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, bindparam, exists, func, select
from sqlalchemy.orm import Session

from core.jobs.claimable import is_claimable
from core.jobs.models.jobs import Job
from core.jobs.models.projects import Project
from core.jobs.quotas import Quotas, gpu_seconds
from core.jobs.status import Status

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Share:
    """A project with queued jobs: how many it runs, and what it may."""

    project_id: str
    running: int
    quotas: Quotas = field(repr=False)

    @property
    def is_full(self) -> bool:
        """Whether it runs as many jobs as it may."""
        return 0 < self.quotas.max_running_jobs <= self.running


def shares(session: Session, defaults: Quotas) -> list[Share]:
    """The projects that have queued jobs, claimable or not, in the order in which it is their turn."""
    running = running_jobs(Project.id)
    queued = exists().where(Job.project_id == Project.id, Job.status == Status.QUEUED)
    turn = (running.asc(), Project.claimed_at.asc().nulls_first(), Project.id)
    query = select(Project, running).where(queued).order_by(*turn)
    return [Share(project.id, count, defaults.of(project)) for project, count in session.execute(query)]


def running_jobs(project_id: Any) -> Any:
    """How many jobs of a project run, as an SQL expression."""
    mine = select(func.count()).select_from(Job).where(Job.project_id == project_id, Job.status == Status.RUNNING)
    return mine.scalar_subquery()


def open_devices(session: Session, share: Share, devices: Sequence[str]) -> Sequence[str]:
    """The devices that a worker who has these may take the project's jobs for.

    Where its GPU seconds are used up, a worker with a GPU takes only what asks for a CPU: `auto` would take the GPU.
    """
    most = share.quotas.max_gpu_seconds
    if most and "cuda" in devices and gpu_seconds(session, share.project_id) >= most:
        return ["cpu"]
    return devices


def front(
    session: Session, project_id: str, devices: Iterable[str] = DEVICES, *, limit: int, should_lock: bool = False
) -> list[str]:
    """The project's first claimable jobs for these devices: by priority, then age.

    `should_lock`: until the transaction ends; what others have locked is passed over.
    """
    found: list[tuple[int, int, str]] = []
    for device in devices:  # each is a stretch of the index, in order
        given = {"project_id": project_id, "device": device, "limit": limit}
        rows = session.execute(_LOCKED_STRETCH if should_lock else _STRETCH, given)
        found += [(-priority, created_at, job_id) for priority, created_at, job_id in rows]
    return [job_id for _, _, job_id in sorted(found)[:limit]]


_STRETCH = (
    select(Job.priority, Job.created_at, Job.id)
    .where(Job.project_id == bindparam("project_id"), Job.device == bindparam("device"), is_claimable())
    .order_by(Job.priority.desc(), Job.created_at, Job.id)
    .limit(bindparam("limit", type_=Integer))
)
_LOCKED_STRETCH = _STRETCH.with_for_update(skip_locked=True, of=Job)
