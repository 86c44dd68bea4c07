"""The tables of jobs as they are at one moment: slow and obvious formulas of what must follow, and what must hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs.claimable import LONGEST_RETRY_SECONDS
from core.jobs.database import database_now
from core.jobs.models.jobs import Attempt, Dependency, Event, Job
from core.jobs.models.projects import Project
from core.jobs.models.webhooks import WebhookDelivery
from core.jobs.status import TERMINAL, TRANSITIONS, Status
from core.jobs.waiting import WaitsFor

DEVICES = {"gpu": ("auto", "cpu", "cuda"), "cpu": ("auto", "cpu")}
TELLING = "p-0"  # the project that has a webhook


@dataclass
class Rows:
    """The tables as they are at one moment."""

    now: float
    projects: dict[str, Project]
    jobs: dict[str, Job]
    attempts: dict[str, list[Attempt]] = field(default_factory=lambda: defaultdict(list))
    events: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    needs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by webhooks

    @classmethod
    def read(cls, session: Session) -> Rows:
        """Everything there is."""
        projects = {row.id: row for row in session.scalars(select(Project))}
        jobs = {row.id: row for row in session.scalars(select(Job).order_by(Job.id))}
        rows = cls(session.scalars(select(database_now())).one(), projects, jobs)
        for attempt in session.scalars(select(Attempt).order_by(Attempt.job_id, Attempt.fence)):
            rows.attempts[attempt.job_id].append(attempt)
        told = select(Event.job_id, Event.fence, Event.seq, Event.type, Event.data)
        for event in session.execute(told.order_by(Event.job_id, Event.fence, Event.seq)):
            rows.events[event.job_id].append(event)
        for dependency in session.scalars(select(Dependency)):
            rows.needs[dependency.job_id].append(dependency.needs_id)
        for delivery in session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)):
            rows.told[delivery.body["data"]["id"]].append(delivery.event_type)
        return rows

    # The slow and obvious formulas.

    def of(self, project_id: str, *statuses: Status) -> list[Job]:
        """The project's jobs of these statuses."""
        return [job for job in self.jobs.values() if job.project_id == project_id and job.status in statuses]

    def gpu_seconds(self, project_id: str) -> float:
        """What its attempts spent on GPUs."""
        mine = [row for job in self.of(project_id, *Status) for row in self.attempts[job.id] if row.device == "cuda"]
        return sum((row.ended_at or self.now) - row.started_at for row in mine)

    def reasons(self, job: Job, worker: str) -> set[WaitsFor]:
        """All that keeps a queued job from this kind of worker."""
        project, found = self.projects[job.project_id], set()
        if any(self.jobs[needed].status is not Status.SUCCEEDED for needed in self.needs[job.id]):
            found.add(WaitsFor.JOBS)
        if job.attempt > 0 and self.now < job.claimable_at <= self.now + LONGEST_RETRY_SECONDS:
            found.add(WaitsFor.RETRY)
        most = project.max_running_jobs
        if most and len(self.of(project.id, Status.RUNNING)) >= most:
            found.add(WaitsFor.RUNNING_QUOTA)
        most = project.max_gpu_seconds
        if most and self.gpu_seconds(project.id) >= most and "cuda" in DEVICES[worker] and job.device != "cpu":
            found.add(WaitsFor.GPU_QUOTA)
        if job.device not in DEVICES[worker]:
            found.add(WaitsFor.GPU_WORKER)
        return found

    def turn(self, job: Job) -> tuple[Any, ...]:
        """What claims are ordered by."""
        project = self.projects[job.project_id]
        waited = (project.claimed_at is not None, project.claimed_at or 0.0)
        running = len(self.of(project.id, Status.RUNNING))
        return (running, waited, project.id, -job.priority, job.created_at, job.id)

    def next_for(self, worker: str) -> str | None:
        """The job that a worker of this kind must get."""
        queued = [job for job in self.jobs.values() if job.status is Status.QUEUED]
        return (
            min((self.turn(job), job.id) for job in free)[1]
            if (free := [job for job in queued if not self.reasons(job, worker)])
            else None
        )


def check_job(rows: Rows, job: Job) -> None:
    """What holds of every job at every moment."""
    is_running = job.status is Status.RUNNING
    live = [row.fence for row in rows.attempts[job.id] if row.ended_at is None]
    assert live == ([job.fence] if is_running else [])
    assert (job.lease_expires_at is not None) is is_running
    assert (job.finished_at is not None) is (job.status in TERMINAL)
    assert (job.error is not None) is (job.status is Status.FAILED)
    assert is_running or not job.pause_requested
    assert 0 <= job.attempt <= job.max_attempts
    assert not (job.status is Status.QUEUED and job.attempt >= job.max_attempts), "no attempt is left for it"
    check_events(rows.events[job.id], job)
    ends = [event.data["status"] for event in rows.events[job.id] if event.type == "status"]
    told = [f"job.{status}" for status in ends if Status(status) in TERMINAL]
    assert rows.told[job.id] == (told if job.project_id == TELLING else [])
    if any(rows.jobs[needed].status in (Status.FAILED, Status.CANCELLED) for needed in rows.needs[job.id]):
        assert job.status in TERMINAL
    if job.status in (Status.QUEUED, Status.PAUSED):
        missing = [needed for needed in rows.needs[job.id] if rows.jobs[needed].status is not Status.SUCCEEDED]
        assert job.lacks_weights is bool(missing)
    if is_running or job.status is Status.SUCCEEDED:
        assert all(rows.jobs[needed].status is Status.SUCCEEDED for needed in rows.needs[job.id])


def check_events(events: Iterable[Any], job: Job) -> None:
    by_fence = defaultdict(list)
    for event in events:
        by_fence[event.fence].append(event.seq)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_fence.values())
    told = [Status(event.data["status"]) for event in events if event.type == "status"]
    assert (told[0], told[-1]) == (Status.QUEUED, job.status)
    assert all(after in TRANSITIONS[before] for before, after in pairwise(told))
