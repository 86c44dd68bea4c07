"""What a project may use, how much of it is used, and who is told so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from core.errors import QuotaReached, QuotaUsedUp
from core.jobs.database import read_clock
from core.jobs.models.jobs import Attempt, Job, SpentGpu
from core.jobs.models.projects import Project
from core.jobs.retention import stored_bytes
from core.jobs.status import UNFINISHED, Status
from core.settings import Settings

GPU_DAYS = 30
RETRY_AFTER_SECONDS = 10.0


@dataclass(frozen=True)
class Quotas:
    """The limits of a project; 0: none."""

    max_running_jobs: int = 0
    max_unfinished_jobs: int = 0
    max_stored_bytes: int = 0
    max_gpu_seconds: int = 0

    @classmethod
    def of_server(cls, settings: Settings) -> Self:
        """What holds for every project that has none of its own."""
        return cls(**{name: getattr(settings, f"project_{name}") for name in asdict(cls())})

    def of(self, project: Project) -> Quotas:
        """The project's own, and these where it has none."""
        own = {name: getattr(project, name) for name in asdict(self)}
        return Quotas(**{**asdict(self), **{name: value for name, value in own.items() if value is not None}})


UNLIMITED = Quotas()


@dataclass(frozen=True)
class Usage:
    """How much of its quotas a project uses."""

    running_jobs: int
    unfinished_jobs: int
    stored_bytes: int
    gpu_seconds: int


def usage_of(session: Session, project_id: str) -> Usage:
    """What the project uses now; GPU seconds: in the last 30 days."""
    mine = select(func.count()).select_from(Job).where(Job.project_id == project_id)
    return Usage(
        running_jobs=session.scalar(mine.where(Job.status == Status.RUNNING)) or 0,
        unfinished_jobs=session.scalar(mine.where(Job.status.in_(UNFINISHED))) or 0,
        stored_bytes=stored_bytes(session, project_id),
        gpu_seconds=gpu_seconds(session, project_id),
    )


def gpu_seconds(session: Session, project_id: str) -> int:
    """Seconds that the project's attempts have spent on GPUs in the last 30 days, those that go on included.

    Those of jobs that were deleted meanwhile count too.
    """
    now = read_clock(session)
    since = now - GPU_DAYS * 86400

    def spent(table: type[Attempt | SpentGpu]) -> Select[Any]:
        start = case((table.started_at < since, since), else_=table.started_at)
        return select(func.sum(func.coalesce(table.ended_at, now) - start))

    theirs = spent(Attempt).join(Job, Job.id == Attempt.job_id)
    mine = theirs.where(Attempt.device == "cuda", Job.project_id == project_id)
    deleted = spent(SpentGpu).where(SpentGpu.project_id == project_id, SpentGpu.ended_at > since)
    # by two looks into the index of attempts
    parts = (mine.where(Attempt.ended_at > since), mine.where(Attempt.ended_at.is_(None)), deleted)
    return max(0, round(sum(session.scalar(part) or 0 for part in parts)))


def admit_jobs(session: Session, project_id: str, *, devices: Sequence[str], defaults: Quotas) -> None:
    """Refuse jobs, for these devices, that the project's quotas do not allow.

    Raises QuotaReached where fewer unfinished jobs would help, QuotaUsedUp where less storage or a month would.
    """
    quotas = _lock_quotas(session, project_id, defaults)
    if most := quotas.max_unfinished_jobs:
        mine: Any = select(1).where(Job.project_id == project_id, Job.status.in_(UNFINISHED))
        unfinished = session.scalar(select(func.count()).select_from(mine.limit(most).subquery())) or 0
        if unfinished + len(devices) > most:
            raise QuotaReached(
                f"the project has {unfinished} unfinished jobs and may have {most}: wait until some have ended",
                param="max_unfinished_jobs",
                retry_after=RETRY_AFTER_SECONDS,
            )
    if quotas.max_stored_bytes:
        _refuse_bytes(session, project_id, quotas.max_stored_bytes, more=1)
    if quotas.max_gpu_seconds and any(device != "cpu" for device in devices):
        used = gpu_seconds(session, project_id)
        if used >= quotas.max_gpu_seconds:
            raise QuotaUsedUp(
                f"the project has used {used} of its {quotas.max_gpu_seconds} GPU seconds in {GPU_DAYS} days: "
                "wait, or set device to cpu",
                param="max_gpu_seconds",
            )


def admit_bytes(session: Session, project_id: str, *, more: int, defaults: Quotas) -> None:
    """Refuse to store so many bytes more than the project may have; raises QuotaUsedUp.

    In the transaction that writes their row: until it ends, no other one of the project can.
    """
    quotas = _lock_quotas(session, project_id, defaults)
    if quotas.max_stored_bytes:
        _refuse_bytes(session, project_id, quotas.max_stored_bytes, more=more)


def _lock_quotas(session: Session, project_id: str, defaults: Quotas) -> Quotas:
    """The project's quotas; if it has any, whoever else checks them waits until the transaction ends."""
    known: dict[str, Project] = session.info.setdefault("projects", {})  # a session forgets what nobody else holds
    project = known.get(project_id) or known.setdefault(project_id, session.get_one(Project, project_id))
    quotas = defaults.of(project)
    if quotas != UNLIMITED:
        session.refresh(project, with_for_update={"key_share": True})
    return defaults.of(project)


def _refuse_bytes(session: Session, project_id: str, most: int, *, more: int) -> None:
    used = stored_bytes(session, project_id)
    if used + more > most:
        raise QuotaUsedUp(
            f"the project stores {used:,} bytes and may store {most:,}: delete files or models",
            param="max_stored_bytes",
        )
