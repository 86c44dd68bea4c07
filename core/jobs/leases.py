"""Jobs as a worker holds them: claim, renew, report, finish. Every write carries the fence; no row means: leave."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, case, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from core.errors import WeightworksError
from core.jobs.checkpoints import remove_checkpoints
from core.jobs.claimable import retry_pause
from core.jobs.database import database_now, read_clock
from core.jobs.ending import end_job
from core.jobs.events import NewEvent, add_event, status_event
from core.jobs.fair_share import Share, front, open_devices, running_jobs, shares
from core.jobs.files import FINE_TUNE_RESULTS, STEP_METRICS, add_file
from core.jobs.ids import new_id
from core.jobs.models.jobs import Attempt, Dependency, Event, Job
from core.jobs.models.projects import Project
from core.jobs.models.results import Artifact, Checkpoint, TrainedModel
from core.jobs.names import fine_tuned_name
from core.jobs.quotas import UNLIMITED, Quotas
from core.jobs.status import TERMINAL, Asked, Status
from core.jobs.store import fail_dependents, free_dependents
from core.jobs.workers import is_to_drain

KEPT, KEPT_EPOCHS = 2, 3


class LeaseLost(Exception):  # noqa: N818 - not an error of the job's
    """The job is someone else's now, or over: stop, and write nothing more."""


@dataclass(frozen=True)
class Claim:
    """A job in this worker's hands, until its lease ends."""

    job_id: str
    project_id: str
    fence: int
    attempt: int
    max_attempts: int
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """A file that was put into storage."""

    path: str
    key: str
    bytes: int
    sha256: str
    media_type: str


@dataclass(frozen=True)
class Suspect:
    """A lease that its worker seems to have lost, as it was seen."""

    job_id: str
    fence: int
    lease_expires_at: float


@dataclass(frozen=True)
class Added:
    """A checkpoint that was noted, and the storage keys of older ones that are no longer needed."""

    id: str
    superseded: list[str]


@dataclass(frozen=True)
class Swept:
    """What a sweep did."""

    requeued: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # failed, cancelled, or paused


def claim_job(
    session: Session, *, owner: str, devices: Sequence[str], lease_seconds: float, defaults: Quotas = UNLIMITED
) -> Claim | None:
    """Take a job that is claimable on one of `devices`: of the project whose turn it is, by priority, then age.

    Fairness between projects comes first, lest the high priorities of one starve the others. `defaults`: the quotas of
    projects that have none of their own.
    """
    if is_to_drain(session, owner):  # it has not heard of that yet
        return None
    while True:
        try:
            return _claim_in_turn(session, owner, devices, lease_seconds, defaults)
        except _Overtaken:  # there is progress, and whose turn it is has changed
            continue


class _Overtaken(Exception):  # noqa: N818 - said in the past tense
    """Another worker has claimed a job of this project since it was looked at."""


def _claim_in_turn(
    session: Session, owner: str, devices: Sequence[str], lease_seconds: float, defaults: Quotas
) -> Claim | None:
    for share in shares(session, defaults):
        if share.is_full:
            continue
        # A savepoint: what is rolled back gives up its lock, so that nobody holds two projects' at once.
        savepoint = session.begin_nested()
        try:
            claim = _claim_of(session, share, owner, devices, lease_seconds)
        except _Overtaken:
            savepoint.rollback()
            raise
        if claim is not None:
            savepoint.commit()
            return claim
        savepoint.rollback()
    return None


def _claim_of(session: Session, share: Share, owner: str, devices: Sequence[str], lease_seconds: float) -> Claim | None:
    lock = select(Project.id).where(Project.id == share.project_id).with_for_update(key_share=True)
    session.execute(lock)
    if (session.scalar(select(running_jobs(share.project_id))) or 0) > share.running:
        raise _Overtaken
    first = front(session, share.project_id, open_devices(session, share, devices), limit=1, should_lock=True)
    if not first:
        return None
    now = int(read_clock(session))
    statement = (
        update(Job)
        .where(Job.id == first[0], Job.status == Status.QUEUED)
        .values(
            status=Status.RUNNING,
            fence=Job.fence + 1,
            attempt=Job.attempt + 1,
            owner=owner,
            lease_expires_at=database_now() + lease_seconds,
            started_at=case((Job.started_at.is_(None), now), else_=Job.started_at),
            progress=None,
        )
        .returning(Job)
        .execution_options(synchronize_session=False)
    )
    job = session.scalars(statement).one_or_none()
    if job is None:
        raise _Overtaken
    session.execute(update(Project).where(Project.id == share.project_id).values(claimed_at=database_now()))
    device = "cuda" if "cuda" in devices and job.device != "cpu" else "cpu"
    _start_attempt(session, job, owner=owner, device=device, now=now)
    return Claim(job.id, job.project_id, job.fence, job.attempt, job.max_attempts, job.spec)


def _start_attempt(session: Session, job: Job, *, owner: str, device: str, now: int) -> None:
    row = Attempt(job_id=job.id, fence=job.fence, attempt=job.attempt, owner=owner, device=device, started_at=now)
    session.add(row)
    message = f"Attempt {job.attempt} of {job.max_attempts} started on {owner}."
    add_event(session, job.id, fence=job.fence, event=status_event(job, message))


def renew_lease(
    session: Session,
    claim: Claim,
    *,
    lease_seconds: float,
    progress: Mapping[str, Any] | None,
    metrics: Mapping[str, float],
) -> Asked | None:
    """Keep the job, and note how far it is; answers what is asked of it: a cancel before a pause. Raises LeaseLost."""
    values: dict[str, Any] = {"lease_expires_at": database_now() + lease_seconds, "metrics": dict(metrics)}
    if progress is not None:
        values["progress"] = dict(progress)
    asked = _fenced(claim).values(**values).returning(Job.cancel_requested, Job.pause_requested)
    found = session.execute(asked).one_or_none()
    if found is None:
        raise LeaseLost(claim.job_id)
    if found.cancel_requested:
        return Asked.CANCEL
    return Asked.PAUSE if found.pause_requested else None


def insert_events(session: Session, events: Sequence[Event]) -> None:
    """Write events that may be there already, whoever owns the job: their ids make repeats harmless."""
    if not events:
        return
    rows = [{column.key: getattr(event, column.key) for column in Event.__table__.columns} for event in events]
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(dialect.insert(Event).on_conflict_do_nothing(), rows)


def add_checkpoint(
    session: Session,
    claim: Claim,
    *,
    key: str,
    step: int,
    size: int,
    sha256: str,
    metrics: Mapping[str, float],
    is_epoch: bool = False,
) -> Added:
    """Note a checkpoint in storage: this one and the furthest before it are kept, and of epochs the furthest three.

    So are those that an unfinished job starts from.

    One of the same step takes the place of an earlier attempt's, and its id: that may be known as a model.
    """
    _lock(session, claim)
    query = select(Checkpoint).where(Checkpoint.job_id == claim.job_id).order_by(Checkpoint.step.desc())
    known = list(session.scalars(query))
    same = next((old for old in known if old.step == step), None)
    row = Checkpoint(
        id=new_id("ckpt") if same is None else same.id,
        job_id=claim.job_id,
        fence=claim.fence,
        step=step,
        key=key,
        bytes=size,
        sha256=sha256,
        metrics=dict(metrics),
        created_at=int(read_clock(session)),
        is_epoch=is_epoch or (same is not None and same.is_epoch),
    )
    superseded = [] if same is None or same.key == key else [same.key]
    row = session.merge(row)
    superseded += remove_checkpoints(session, _too_many([row, *(old for old in known if old is not same)]))
    return Added(row.id, superseded)


def _too_many(known: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those of a job's checkpoints, the newest first, that are not kept."""
    of_epochs = [row for row in known[KEPT:] if row.is_epoch]
    kept = sum(row.is_epoch for row in known[:KEPT])
    return [row for row in known[KEPT:] if row not in of_epochs[: max(0, KEPT_EPOCHS - kept)]]


def succeed_job(
    session: Session,
    claim: Claim,
    *,
    files: Sequence[Published],
    metrics: Mapping[str, float],
    lineage: Mapping[str, Any],
) -> str:
    """Publish the artifacts and the model, and end the job, in one step; answers the model's id. Raises LeaseLost."""
    job = _end(session, claim, Status.SUCCEEDED, metrics=metrics)
    session.flush()
    free_dependents(session, job)
    _publish(session, claim, files)
    model = TrainedModel(
        id=new_id("model"),
        project_id=job.project_id,
        job_id=job.id,
        name=job.name,
        method=job.method,
        bytes=sum(file.bytes for file in files),
        metrics=dict(metrics),
        lineage=dict(lineage),
        created_at=int(read_clock(session)),
    )
    if job.request is not None:
        model.alias = fine_tuned_name(job, session.get_one(Project, job.project_id).name)
        _give_results(session, job, files)
    session.add(model)
    event = NewEvent("status", "The job succeeded.", data={**status_event(job, "").data, "model": model.id})
    add_event(session, job.id, fence=job.fence, event=event)
    return model.id


def _give_results(session: Session, job: Job, files: Sequence[Published]) -> None:
    """Have the job's metrics, step by step, be a file of the project; its content is in storage already."""
    for file in files:
        if file.path == STEP_METRICS:
            job.result_file_id = add_file(
                session,
                job.project_id,
                filename=STEP_METRICS,
                purpose=FINE_TUNE_RESULTS,
                size=file.bytes,
                sha256=file.sha256,
                profile=None,
            ).id


def cancel_running_job(
    session: Session, claim: Claim, *, files: Sequence[Published], metrics: Mapping[str, float]
) -> None:
    """End a job that was told to stop, publishing what it learned until then. Raises LeaseLost."""
    job = _end(session, claim, Status.CANCELLED, metrics=metrics)
    _publish(session, claim, files)
    message = "The job was cancelled; what it learned until then can be downloaded."
    add_event(session, job.id, fence=job.fence, event=status_event(job, message))
    fail_dependents(session, job)


def fail_job(
    session: Session, claim: Claim, error: WeightworksError, *, is_retryable: bool, retry_seconds: float = 0.0
) -> Status:
    """End a failed attempt, and answer what became of the job. Raises LeaseLost.

    Where another attempt may help, the job is queued again while attempts are left, and claimable after a pause that
    doubles with each; if a pause was asked for, it is paused. If a cancel was asked for, it is cancelled, whatever the
    error.
    """
    job = _locked(session, claim)
    job.attempt = claim.attempt
    if job.cancel_requested:
        _cancel(session, job, f"Attempt {job.attempt} failed: {error.message}")
    elif is_retryable and job.pause_requested:
        _pause(session, job, attempt=claim.attempt, outcome="failed", why=f"Attempt {job.attempt} failed")
    elif is_retryable and job.attempt < job.max_attempts:
        _requeue(session, job, outcome="failed")
        seconds = retry_pause(retry_seconds, job.attempt)
        job.claimable_at += seconds
        message = f"Attempt {job.attempt} failed: {error.message}. The next one can start in {seconds:g} seconds."
        add_event(session, job.id, fence=job.fence, event=status_event(job, message, "warn"))
    else:
        _fail(session, job, error)
    return job.status


def forgive_attempt(session: Session, claim: Claim) -> None:
    """Give the attempt back at once, for a worker that must leave: it may be killed before it has released the job.

    Should the attempt end by itself meanwhile, it counts. Raises LeaseLost.
    """
    _locked(session, claim).attempt = claim.attempt - 1


def release_job(session: Session, claim: Claim, *, reason: str = "The worker leaves") -> Status:
    """Give a job back unfinished, without using up the attempt; answers what became of it. Raises LeaseLost.

    It is queued again, unless a cancel or a pause was asked for.
    """
    job = _locked(session, claim)
    job.attempt = claim.attempt - 1
    if job.cancel_requested:
        _cancel(session, job, reason)
    elif job.pause_requested:
        _pause(session, job, attempt=claim.attempt, outcome="paused", why=reason)
    else:
        _requeue(session, job, outcome="released")
        event = status_event(job, f"{reason}; the job waits for another attempt.")
        add_event(session, job.id, fence=job.fence, event=event)
    return job.status


def devices_waiting_for(session: Session, job_id: str) -> list[str]:
    """The device of each queued job that takes this job's weights: whom to wake."""
    dependents = select(Dependency.job_id).where(Dependency.needs_id == job_id)
    return list(session.scalars(select(Job.device).where(Job.id.in_(dependents), Job.status == Status.QUEUED)))


def held_leases(session: Session) -> list[Suspect]:
    """The lease of every running job, as it is now."""
    return _leases(session)


def suspect_leases(session: Session, *, lease_seconds: float) -> list[Suspect]:
    """Leases that have ended by the database's clock, or that end later than any renewal can have said.

    Neither proves a worker lost: the clock may have jumped, forward or back. What a living worker renews changes.
    """
    now = database_now()
    is_odd = or_(Job.lease_expires_at < now, Job.lease_expires_at > now + lease_seconds + 1)
    return _leases(session, is_odd)


def _leases(session: Session, *conditions: ColumnElement[bool]) -> list[Suspect]:
    query = select(Job.id, Job.fence, Job.lease_expires_at).where(Job.status == Status.RUNNING, *conditions)
    return [Suspect(job_id, fence, ends_at or 0.0) for job_id, fence, ends_at in session.execute(query)]


def sweep_expired(session: Session, suspects: Collection[Suspect], said: Sequence[Event] = ()) -> Swept:
    """Take back the jobs whose leases are as they were seen: queue them again, or fail them after the last attempt.

    Whoever calls has made sure, by looking twice, that a living worker would have renewed meanwhile. `said`: what the
    lost workers may have told only Redis. It is written once a job's row is locked: a worker that is stopped in the
    midst of writing the same events holds that row, which is then passed over instead of waited for.
    """
    swept = Swept()
    for one in suspects:
        unchanged = (Job.fence == one.fence, Job.lease_expires_at == one.lease_expires_at)
        query = select(Job).where(Job.id == one.job_id, Job.status == Status.RUNNING, *unchanged)
        job = session.scalar(query.with_for_update(skip_locked=True))
        if job is None:
            continue
        insert_events(session, [event for event in said if event.job_id == job.id])
        _take_back(session, job)
        (swept.requeued if job.status is Status.QUEUED else swept.ended).append(job.id)
    return swept


def _take_back(session: Session, job: Job) -> None:
    # A new fence for what is said next: the lost worker's last events may be in Redis only, under the old one.
    claimed = session.get(Attempt, (job.id, job.fence))
    attempt = claimed.attempt if claimed else job.attempt  # the row's may be forgiven already
    lost = f"worker {job.owner} was lost in attempt {attempt}"
    _close_attempt(session, job.id, job.fence, "lost")
    job.fence += 1
    if job.cancel_requested:
        _cancel(session, job, f"The {lost}")
    elif job.pause_requested:
        _pause(session, job, attempt=attempt, outcome="lost", why=f"The {lost}")
    elif job.attempt < job.max_attempts:
        _requeue(session, job, outcome="lost")
        event = status_event(job, f"The {lost}; the job waits for the next attempt.", "warn")
        add_event(session, job.id, fence=job.fence, event=event)
    else:
        _fail(session, job, WeightworksError(f"{lost}, the last one allowed", code="worker_lost"))


def fences_at_rest(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Those of these jobs that no worker holds, each with its last fence: whoever claims it next has a higher one."""
    query = select(Job.id, Job.fence).where(Job.id.in_(job_ids), Job.status != Status.RUNNING)
    return {job_id: fence for job_id, fence in session.execute(query)}  # noqa: C416 - rows are not pairs to mypy


def latest_checkpoints(session: Session, job_id: str) -> list[Checkpoint]:
    """The checkpoints to try, the furthest first."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    return list(session.scalars(query.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc())))


def _fenced(claim: Claim) -> Any:
    held = (Job.id == claim.job_id, Job.fence == claim.fence, Job.status == Status.RUNNING)
    return update(Job).where(*held).execution_options(synchronize_session=False)


def _lock(session: Session, claim: Claim) -> None:
    """Make sure, until the transaction ends, that the claim still holds."""
    result = session.execute(_fenced(claim).values(fence=claim.fence))
    assert isinstance(result, CursorResult)  # noqa: S101 - an UPDATE without RETURNING
    if result.rowcount == 0:
        raise LeaseLost(claim.job_id)


def _locked(session: Session, claim: Claim) -> Job:
    _lock(session, claim)
    return session.get_one(Job, claim.job_id, populate_existing=True)


def _end(session: Session, claim: Claim, status: Status, *, metrics: Mapping[str, float]) -> Job:
    job = _locked(session, claim)
    job.attempt, job.metrics = claim.attempt, dict(metrics) or job.metrics
    _leave(session, job, status, outcome=status.value)
    return job


def _publish(session: Session, claim: Claim, files: Sequence[Published]) -> None:
    for old in session.scalars(select(Artifact).where(Artifact.job_id == claim.job_id)):
        session.delete(old)
    session.flush()
    for file in files:
        session.add(
            Artifact(
                job_id=claim.job_id,
                path=file.path,
                key=file.key,
                bytes=file.bytes,
                sha256=file.sha256,
                media_type=file.media_type,
            )
        )


def _requeue(session: Session, job: Job, *, outcome: str) -> None:
    _leave(session, job, Status.QUEUED, outcome=outcome)
    job.claimable_at = read_clock(session)


def _pause(session: Session, job: Job, *, attempt: int, outcome: str, why: str) -> None:
    """The attempt does not count: it was to end."""
    _leave(session, job, Status.PAUSED, outcome=outcome)
    job.attempt = attempt - 1
    add_event(session, job.id, fence=job.fence, event=status_event(job, f"{why}; the job is paused."))


def _cancel(session: Session, job: Job, why: str) -> None:
    _leave(session, job, Status.CANCELLED, outcome="cancelled")
    add_event(session, job.id, fence=job.fence, event=status_event(job, f"{why}. The job was cancelled."))
    fail_dependents(session, job)


def _fail(session: Session, job: Job, error: WeightworksError) -> None:
    _leave(session, job, Status.FAILED, outcome="failed")
    job.error = error.as_dict()
    event = status_event(job, f"The job failed: {error.message}", "error")
    add_event(session, job.id, fence=job.fence, event=event)
    fail_dependents(session, job)


def _leave(session: Session, job: Job, status: Status, *, outcome: str) -> None:
    """End the attempt; whoever asks for a pause from now on asks another one."""
    job.lease_expires_at, job.pause_requested = None, False
    if status in TERMINAL:
        end_job(session, job, status)
    else:
        job.status, job.owner = status, None
    _close_attempt(session, job.id, job.fence, outcome)


def _close_attempt(session: Session, job_id: str, fence: int, outcome: str) -> None:
    attempt = session.get(Attempt, (job_id, fence))
    if attempt is not None:
        attempt.ended_at, attempt.outcome = int(read_clock(session)), outcome
