"""Why queued jobs wait: for each the one thing that keeps it, or else its place in the order of the claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from core.jobs.claimable import is_backing_off, is_claimable
from core.jobs.database import database_now
from core.jobs.fair_share import DEVICES, Share, front, shares
from core.jobs.models.jobs import Dependency, Job
from core.jobs.quotas import UNLIMITED, Quotas, gpu_seconds
from core.jobs.status import Status
from core.jobs.workers import Workforce, workforce

SHOWN_AHEAD = 10
COUNTED = 500  # places behind are not told: whoever is so far back looks again later


class WaitsFor(StrEnum):
    """What keeps a queued job."""

    JOBS = "jobs"
    RETRY = "retry"
    RUNNING_QUOTA = "max_running_jobs"
    GPU_QUOTA = "max_gpu_seconds"
    ANY_WORKER = "any_worker"
    GPU_WORKER = "gpu_worker"
    UNDRAINED_WORKER = "undrained_worker"
    FREE_WORKER = "free_worker"


@dataclass(frozen=True)
class Need:
    """A job whose weights another one takes, as the model in its spec's `field`."""

    field: str
    job_id: str
    status: Status


@dataclass(frozen=True)
class Wait:
    """What a queued job waits for.

    `until`: when its pause ends, by the database's clock. `limit`: the quota's. `position`: 1 is next; None where
    something else keeps it, and far back. `ahead`: the first of its own project's jobs before it.
    """

    what: WaitsFor
    until: float | None = None
    limit: int | None = None
    position: int | None = None
    ahead: Sequence[str] = field(default_factory=list)


def needs_of_jobs(session: Session, job_ids: Sequence[str]) -> dict[str, list[Need]]:
    """The jobs whose weights each of these takes."""
    found: dict[str, list[Need]] = {job_id: [] for job_id in job_ids}
    needs = select(Dependency.job_id, Dependency.field, Job.id, Job.status).join(Job, Dependency.needs_id == Job.id)
    for job_id, name, needed, status in session.execute(needs.where(Dependency.job_id.in_(found))):
        found[job_id].append(Need(name, needed, status))
    return found


def waits_of(
    session: Session, project_id: str, jobs: Sequence[Job], *, defaults: Quotas, beat_seconds: float
) -> dict[str, Wait]:
    """Why each of the project's queued jobs waits. Needs come first, then the project's quotas, then the workers."""
    turn = shares(session, defaults)
    mine = next((share for share in turn if share.project_id == project_id), None)
    if mine is None:  # the last of them was claimed since it was read
        return {job.id: Wait(WaitsFor.FREE_WORKER, position=1) for job in jobs}
    force = workforce(session, beat_seconds=beat_seconds)
    devices = _open_to(session, mine, force)
    found = _held_back(session, jobs)
    for job in jobs:
        wait = _kept_by_project(mine, job, devices) or _kept_by_workers(job, force)
        if wait is not None:
            found.setdefault(job.id, wait)
    rest = [job.id for job in jobs if job.id not in found]
    return found | (_places(session, turn, mine, rest, force) if rest else {})


def _held_back(session: Session, jobs: Sequence[Job]) -> dict[str, Wait]:
    """Those that could not be claimed whatever is free."""
    ids = [job.id for job in jobs]
    pauses = session.execute(select(Job.id, Job.claimable_at).where(Job.id.in_(ids), is_backing_off()))
    found = {job_id: Wait(WaitsFor.RETRY, until=claimable_at) for job_id, claimable_at in pauses}
    for job_id, needs in needs_of_jobs(session, ids).items():
        if any(need.status is not Status.SUCCEEDED for need in needs):
            found[job_id] = Wait(WaitsFor.JOBS)
    return found


def _kept_by_project(share: Share, job: Job, devices: Sequence[str]) -> Wait | None:
    if share.is_full:
        return Wait(WaitsFor.RUNNING_QUOTA, limit=share.quotas.max_running_jobs)
    if job.device not in devices:
        return Wait(WaitsFor.GPU_QUOTA, limit=share.quotas.max_gpu_seconds)
    return None


def _kept_by_workers(job: Job, force: Workforce) -> Wait | None:
    if force.workers == 0:
        return Wait(WaitsFor.ANY_WORKER)
    if job.device == "cuda" and force.with_gpu == 0:
        return Wait(WaitsFor.GPU_WORKER)
    able = force.with_gpu - force.draining_with_gpu if job.device == "cuda" else force.workers - force.draining
    return Wait(WaitsFor.UNDRAINED_WORKER) if able == 0 else None


def _open_to(session: Session, share: Share, force: Workforce) -> Sequence[str]:
    """The devices that the project's GPU seconds leave open; `auto` is one if there is a worker without a GPU."""
    most = share.quotas.max_gpu_seconds
    if not most or gpu_seconds(session, share.project_id) < most:
        return DEVICES
    return ("cpu",) if force.with_gpu and not force.cpu_only else ("auto", "cpu")


def _places(
    session: Session, turn: Sequence[Share], mine: Share, job_ids: Sequence[str], force: Workforce
) -> dict[str, Wait]:
    """Their places, were every claim from now on to follow the order of the claims, and no job to end."""
    queue = front(session, mine.project_id, _open_to(session, mine, force), limit=COUNTED)
    ranks = {job_id: rank for rank, job_id in enumerate(queue)}
    furthest = mine.running + max((ranks.get(job_id, 0) for job_id in job_ids), default=0)
    others = _others(session, turn, mine, furthest, force)
    found = {}
    for job_id in job_ids:
        rank = ranks.get(job_id)
        position = None if rank is None else 1 + rank + sum(_ahead(other, mine, rank) for other in others)
        told = position if position is not None and position <= COUNTED else None
        found[job_id] = Wait(WaitsFor.FREE_WORKER, position=told, ahead=queue[:rank][:SHOWN_AHEAD])
    return found


@dataclass(frozen=True)
class _Other:
    """Another project: how many claimable jobs it has, and whether it comes first where both run equally many."""

    running: int
    queued: int
    is_first: bool


def _others(session: Session, turn: Sequence[Share], mine: Share, furthest: int, force: Workforce) -> list[_Other]:
    found, is_first = [], True
    for share in turn:
        if share == mine:
            is_first = False
        elif not share.is_full and share.running <= furthest:
            devices, most = _open_to(session, share, force), furthest - share.running + 1
            queued = len(front(session, share.project_id, devices, limit=most))
            # Of two that come to run equally many, the one that had more from the start was claimed for earlier.
            found.append(_Other(share.running, queued, is_first if share.running == mine.running else not is_first))
    return found


def _ahead(other: _Other, mine: Share, rank: int) -> int:
    """How many of the other project's jobs are claimed before the job of this rank (0 is first) of mine."""
    level = mine.running + rank  # how many of mine run when it is this job's turn
    before = level - other.running + other.is_first
    return max(0, min(other.queued, before))


def waiting_devices(session: Session, *, older_than: float, limit: int, defaults: Quotas = UNLIMITED) -> list[str]:
    """The devices of jobs that could have been claimed for so many seconds: their wake-ups may be lost.

    And of those whose pause after a failed attempt is over: nobody was woken for them.
    `limit`: how many jobs of each device.
    """
    found: dict[str, int] = dict.fromkeys(DEVICES, 0)
    is_due = or_(Job.attempt > 0, Job.claimable_at < database_now() - older_than, Job.claimable_at > database_now())
    for share in shares(session, defaults):
        for device in DEVICES:
            left = limit - found[device]
            if not share.is_full and left > 0:
                mine = select(Job.id).where(Job.project_id == share.project_id, Job.device == device)
                due = mine.where(is_claimable(), is_due).limit(left)
                found[device] += session.scalar(select(func.count()).select_from(due.subquery())) or 0
    return [device for device, count in found.items() for _ in range(count)]
