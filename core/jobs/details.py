"""What is told of jobs beside their rows: attempts, what they wait for, their models; for a whole page at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs.models.jobs import Attempt, Job
from core.jobs.models.results import TrainedModel
from core.jobs.quotas import Quotas
from core.jobs.status import Status
from core.jobs.waiting import Need, Wait, needs_of_jobs, waits_of
from core.settings import Settings


@dataclass
class Details:
    """What is known of one job. `wait`: only of a queued one."""

    attempts: list[Attempt] = field(default_factory=list)
    needs: list[Need] = field(default_factory=list)
    model: TrainedModel | None = None
    wait: Wait | None = None


def details_of(session: Session, project_id: str, jobs: Sequence[Job], settings: Settings) -> dict[str, Details]:
    """The details of each of the project's jobs, by its id."""
    needs = needs_of_jobs(session, [job.id for job in jobs])
    found = {job.id: Details(needs=needs[job.id]) for job in jobs}
    claimed = [job.id for job in jobs if job.fence]
    if claimed:
        for attempt in session.scalars(select(Attempt).where(Attempt.job_id.in_(claimed)).order_by(Attempt.fence)):
            found[attempt.job_id].attempts.append(attempt)
    made = [job.id for job in jobs if job.status is Status.SUCCEEDED]
    if made:
        for model in session.scalars(select(TrainedModel).where(TrainedModel.job_id.in_(made))):
            found[model.job_id].model = model
    queued = [job for job in jobs if job.status is Status.QUEUED]
    if queued:
        defaults, beat_seconds = Quotas.of_server(settings), settings.renew_seconds
        waits = waits_of(session, project_id, queued, defaults=defaults, beat_seconds=beat_seconds)
        for job_id, wait in waits.items():
            found[job_id].wait = wait
    return found
