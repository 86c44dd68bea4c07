"""Why a queued job waits, in words."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from pydantic import Field

from api.answers.answer import Answer
from core.jobs.details import Details
from core.jobs.models.jobs import Job
from core.jobs.quotas import GPU_DAYS
from core.jobs.status import Status
from core.jobs.waiting import COUNTED, Wait, WaitsFor

WORKERS = {"auto": "any", "cpu": "any", "cuda": "gpu"}


class NeededJob(Answer):
    """A job whose weights another one takes."""

    field: str
    job: str
    status: Status


class WaitingObject(Answer):
    """Why a queued job does not run yet."""

    reason: str
    what: WaitsFor = Field(description="What it waits for: the one thing that keeps it from running.")
    until: int | None = Field(description="When the pause after its last attempt ends.")
    limit: int | None = Field(description="What the quota allows that keeps it.")
    position: int | None = Field(
        description="Its place among all that could start; 1: it is next. Null far back, and if something keeps it."
    )
    ahead: list[str] = Field(description="The first of the project's own jobs that start before it.")
    needs: list[NeededJob]
    worker: str = Field(description="The device that it needs a worker for.")


def waiting_object(job: Job, details: Details) -> WaitingObject | None:
    """Why the job waits; None if it does not."""
    wait = details.wait
    if wait is None:
        return None
    needs = [
        NeededJob(field=need.field, job=need.job_id, status=need.status)
        for need in details.needs
        if need.status is not Status.SUCCEEDED
    ]
    return WaitingObject(
        reason=_in_words(wait, needs, worker=WORKERS[job.device]),
        what=wait.what,
        until=None if wait.until is None else math.ceil(wait.until),
        limit=wait.limit,
        position=wait.position,
        ahead=list(wait.ahead),
        needs=needs,
        worker=WORKERS[job.device],
    )


def _in_words(wait: Wait, needs: list[NeededJob], *, worker: str) -> str:
    match wait.what:
        case WaitsFor.JOBS:
            return f"waits for the weights of {', '.join(f'{need.job} ({need.status})' for need in needs)}"
        case WaitsFor.RETRY:
            moment = datetime.fromtimestamp(math.ceil(wait.until or 0), UTC)
            return f"its last attempt failed; the next one can start at {moment:%H:%M:%S} UTC"
        case WaitsFor.RUNNING_QUOTA:
            return f"the project runs as many jobs as it may at once: {wait.limit}"
        case WaitsFor.GPU_QUOTA:
            return f"the project has used up its {wait.limit} GPU seconds of {GPU_DAYS} days"
        case WaitsFor.ANY_WORKER:
            return "no worker runs"
        case WaitsFor.GPU_WORKER:
            return "no worker with a GPU runs"
        case WaitsFor.UNDRAINED_WORKER:
            return f"every worker{' with a GPU' if worker == 'gpu' else ''} is drained and takes no new job"
        case WaitsFor.FREE_WORKER:
            return f"waits for a free worker; {_before(wait.position)}"


def _before(position: int | None) -> str:
    if position is None:
        return f"over {COUNTED} jobs are ahead of it"
    if position == 1:
        return "it is next"
    return f"{position - 1} {'job is' if position == 2 else 'jobs are'} ahead of it"
