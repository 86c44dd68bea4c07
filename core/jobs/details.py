"""What is told of jobs beside their rows: attempts, what they wait for, their models; for a whole page at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from core.jobs.claimable import is_claimable
from core.jobs.database import database_now
from core.jobs.models import Attempt, Dependency, Job, TrainedModel
from core.jobs.status import Status

SHOWN_AHEAD = 10
COUNTED = 500  # places behind are not told: whoever is so far back looks again later


@dataclass(frozen=True)
class Need:
    """A job whose weights another one takes, as the model in its spec's `field`."""

    field: str
    job_id: str
    status: Status


@dataclass(frozen=True)
class QueuePlace:
    """Where a job stands among all that could start: 1 is next. `ahead`: the first of its own project's before it."""

    position: int
    ahead: list[str]


@dataclass
class Details:
    """What is known of one job."""

    attempts: list[Attempt] = field(default_factory=list)
    needs: list[Need] = field(default_factory=list)
    model: TrainedModel | None = None
    place: QueuePlace | None = None


def details_of(session: Session, project_id: str, jobs: Sequence[Job]) -> dict[str, Details]:
    """The details of each job, by its id."""
    found = {job.id: Details() for job in jobs}
    claimed = [job.id for job in jobs if job.fence]
    if claimed:
        for attempt in session.scalars(select(Attempt).where(Attempt.job_id.in_(claimed)).order_by(Attempt.fence)):
            found[attempt.job_id].attempts.append(attempt)
    needs = select(Dependency.job_id, Dependency.field, Job.id, Job.status).join(Job, Dependency.needs_id == Job.id)
    for job_id, name, needed, status in session.execute(needs.where(Dependency.job_id.in_(found))):
        found[job_id].needs.append(Need(name, needed, status))
    made = [job.id for job in jobs if job.status is Status.SUCCEEDED]
    if made:
        for model in session.scalars(select(TrainedModel).where(TrainedModel.job_id.in_(made))):
            found[model.job_id].model = model
    queued = [job.id for job in jobs if job.status is Status.QUEUED]
    if queued:
        for job_id, place in _queue_places(session, project_id, queued).items():
            found[job_id].place = place
    return found


def _queue_places(session: Session, project_id: str, job_ids: Sequence[str]) -> dict[str, QueuePlace]:
    """The places of those among the first of the queue; what still needs another job's weights is not in it."""
    queue = list(session.scalars(_FRONT))
    wanted = set(job_ids)
    last = max((index for index, job_id in enumerate(queue) if job_id in wanted), default=0)
    ours = select(Job.id).where(Job.id.in_(queue[:last]), Job.project_id == project_id)
    ahead = list(session.scalars(ours.order_by(*_ORDER).limit(SHOWN_AHEAD))) if last else []
    places = {job_id: index for index, job_id in enumerate(queue)}
    return {
        job_id: QueuePlace(places[job_id] + 1, [other for other in ahead if places[other] < places[job_id]])
        for job_id in job_ids
        if job_id in places
    }


def waiting_devices(session: Session, *, older_than: float, limit: int) -> list[str]:
    """The devices of jobs that could have been claimed for so many seconds: their wake-ups may be lost.

    And of those whose pause after a failed attempt is over: nobody was woken for them.
    `limit`: how many jobs of each device.
    """
    rank = func.row_number().over(partition_by=Job.device).label("rank")
    is_due = or_(Job.attempt > 0, Job.claimable_at < database_now() - older_than, Job.claimable_at > database_now())
    ranked = select(Job.device, rank).where(is_claimable(), is_due).subquery()
    return list(session.scalars(select(ranked.c.device).where(ranked.c.rank <= limit)))


_ORDER = (Job.priority.desc(), Job.created_at, Job.id)
_FRONT = select(Job.id).where(is_claimable()).order_by(*_ORDER).limit(COUNTED)
