"""The job's life, model-checked: random interleavings against the real store, and what must hold after each step.

LIFE_EXAMPLES: how many random lives; with it they differ from run to run (`make life`). Without it they are the same
few every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from core.errors import Conflict, QuotaReached, QuotaUsedUp, WeightworksError
from core.jobs import asking, attempts, checkpointing, claiming, leases, publishing, quotas, store, sweeping, webhooks
from core.jobs.artifacts import Published
from core.jobs.database import Database
from core.jobs.events import NewEvent, as_row, insert_events
from core.jobs.leases import Claim, LeaseLost
from core.jobs.models.base import Base
from core.jobs.models.jobs import Attempt, Job
from core.jobs.models.projects import Project
from core.jobs.models.workers import WorkerSlot
from core.jobs.quotas import UNLIMITED
from core.jobs.status import TERMINAL, UNFINISHED, Asked, Status, WebhookEvent
from core.jobs.sweeping import Suspect
from core.jobs.waiting import Wait, WaitsFor, waits_of
from core.jobs.workers import beat
from core.spec import MethodSpec
from tests.core.jobs.rows import DEVICES, TELLING, Rows, check_job

EXAMPLES = int(os.environ.get("LIFE_EXAMPLES", "0"))
STEPS = 40
HOUR = 3600.0
BEAT_SECONDS = 1e6  # the workers of this test never go
LIMITS = st.sampled_from([None, None, 0, 1, 2])

ASKED = {
    "cancel": UNFINISHED,
    "pause": [Status.QUEUED],
    "resume": [Status.PAUSED],
    "retry": [Status.FAILED, Status.CANCELLED],
}
STEPS_TO_TAKE = [
    *("submit", "claim", "claim", "claim", "sweep", "sweep", "pass_time", "burn"),
    *("cancel", "pause", "pause", "pause", "resume", "resume", "retry"),
    *("renew", "checkpoint", "succeed", "end_cancelled", "fail", "fail", "release", "release", "forgive"),
]

seeds = st.integers(0, 2**20)


class Life(RuleBasedStateMachine):
    """Several workers, some of them dead without knowing it, and several people, at a few projects' jobs."""

    database: Database
    current: Rows | None = None
    current_waits: dict[str, Wait] | None = None

    @initialize(
        running=st.tuples(LIMITS, LIMITS, LIMITS),
        unfinished=st.sampled_from([None, 6]),
        gpu=st.booleans(),
        seed=seeds,
    )
    def begin(self, running: tuple[int | None, ...], unfinished: int | None, gpu: bool, seed: int) -> None:
        with self.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(delete(table))
            for number, most in enumerate(running):
                own = {"max_running_jobs": most, "max_unfinished_jobs": unfinished if number == 0 else None}
                gpu_quota = 100 if gpu and number == 1 else None
                session.add(Project(id=f"p-{number}", name=f"{number}", created_at=0, max_gpu_seconds=gpu_quota, **own))
            webhooks.create_endpoint(session, TELLING, name="all", url="https://a.b/", event_types=list(WebhookEvent))
            for name in DEVICES:
                beat(session, name, host="here", has_gpu=name == "gpu", is_draining=False, is_asked=False)
        self.claims: list[Claim] = []
        self.told: dict[tuple[str, int], int] = {}
        self.before: Rows | None = None
        self.retried: set[str] = set()  # in this step
        self.readmitted: set[str] = set()  # by a retry, which the API holds to the quota, and this test does not
        dice = Random(seed)
        for _ in range(8):
            self.submit_one(dice)
        for worker in [*DEVICES] * 2:
            self.claim_one(worker)

    @rule(seed=seeds)
    def step(self, seed: int) -> None:
        """One rule, its choices drawn evenly: of several rules each life is denied some, and small numbers abound."""
        dice = Random(seed)
        what = dice.choice(STEPS_TO_TAKE)
        pick = dice.randrange(10**6)
        if what == "submit":
            self.submit_one(dice)
        elif what == "claim":
            self.claim_one(dice.choice(list(DEVICES)))
        elif what in ASKED:
            self.ask(pick, what)
        elif what == "fail":
            self.fail(pick, dice.random() < 0.7, dice.choice([0.0, 30.0]))
        elif what == "sweep":
            self.sweep({dice.randrange(10**6) for _ in range(2)}, is_stale=dice.random() < 0.25)
        elif what == "pass_time":
            self.pass_time(dice.choice([31.0, 61.0, HOUR, -HOUR]))
        elif what == "burn":
            self.burn(dice.randrange(3))
        elif self.claims:
            getattr(self, what)(pick)

    # What people do.

    def submit_one(self, dice: Random) -> None:
        project, priority, max_attempts = dice.randrange(3), dice.randint(-1, 1), dice.randint(1, 3)
        device = dice.choice(["auto", "auto", "auto", "cpu", "cuda"])
        rows, project_id = self.rows(), f"p-{project}"
        mine = rows.of(project_id, *Status)
        wanted = {"teacher": dice.choice(mine).id} if mine and dice.random() < 0.4 else {}
        spec = MethodSpec(method="pca", dataset="file-1", priority=priority, device=device)
        most, gpu = rows.projects[project_id].max_unfinished_jobs, rows.projects[project_id].max_gpu_seconds
        is_refused = (most and len(rows.of(project_id, *UNFINISHED)) >= most) or (
            gpu and device != "cpu" and rows.gpu_seconds(project_id) >= gpu
        )
        try:
            with self.write() as session:
                quotas.admit_jobs(session, project_id, devices=[device], defaults=UNLIMITED)
                made = {"project_id": project_id, "spec": spec, "max_attempts": max_attempts, "needs": wanted}
                store.create_job(session, **made)
        except (QuotaReached, QuotaUsedUp):
            assert is_refused
        else:
            assert not is_refused

    def ask(self, pick: int, what: str) -> None:
        """Of any job; more often of one that runs, or that it can be asked of."""
        rows, apt = self.rows(), (ASKED[what], list(Status), [Status.RUNNING])[pick % 3]
        jobs = [job for job in rows.jobs.values() if job.status in apt]
        if not jobs:
            return
        job = jobs[pick // 3 % len(jobs)]
        is_running = job.status is Status.RUNNING
        allowed = {
            "cancel": job.status not in TERMINAL,
            "pause": job.status is Status.QUEUED or (is_running and not job.cancel_requested),
            "resume": job.status is Status.PAUSED or (is_running and job.pause_requested),
            "retry": job.status in (Status.FAILED, Status.CANCELLED),
        }[what]
        try:
            with self.write() as session:
                getattr(asking, f"{what}_job")(session, job.project_id, job.id)
        except Conflict:
            assert not allowed
        else:
            assert allowed
            if what == "retry":
                self.retried.add(job.id)
                self.readmitted.add(job.id)

    # What workers do.

    def claim_one(self, worker: str) -> None:
        rows, waits = self.rows(), self.waits()
        expected = rows.next_for(worker)
        with self.write() as session:
            claim = claiming.claim_job(session, owner=worker, devices=DEVICES[worker], lease_seconds=60)
        assert (claim and claim.job_id) == expected
        if claim is None:
            return
        self.claims.append(claim)
        self.told[claim.job_id, claim.fence] = 1
        assert waits[claim.job_id].what is WaitsFor.FREE_WORKER
        if worker == "gpu" and not any(project.max_gpu_seconds for project in rows.projects.values()):
            assert waits[claim.job_id].position == 1
        assert claim.attempt <= claim.max_attempts

    def claim_at(self, pick: int) -> Claim:
        """One of all claims; more often one that holds."""
        jobs = self.rows().jobs
        live = [
            one
            for one in self.claims
            if (jobs[one.job_id].status, jobs[one.job_id].fence) == (Status.RUNNING, one.fence)
        ]
        some = live if live and pick % 4 else self.claims
        return some[pick // 4 % len(some)]

    def attempt(self, pick: int, what: Callable[[Session, Claim], Any]) -> Any:
        """Have one of the workers, dead or alive, do this: who does not hold the job any more must be refused."""
        claim = self.claim_at(pick)
        job = self.rows().jobs[claim.job_id]
        is_held = (job.status, job.fence) == (Status.RUNNING, claim.fence)
        try:
            with self.write() as session:
                found = what(session, claim)
        except LeaseLost:
            assert not is_held
            return None
        assert is_held, "a late write was accepted"
        return found

    def renew(self, pick: int) -> None:
        job = self.rows().jobs[self.claim_at(pick).job_id]
        asked = Asked.CANCEL if job.cancel_requested else Asked.PAUSE if job.pause_requested else None

        def renew(session: Session, claim: Claim) -> None:
            assert leases.renew_lease(session, claim, lease_seconds=60, progress=None, metrics={}) is asked
            seq = self.told[claim.job_id, claim.fence] + 1
            insert_events(session, [as_row(claim.job_id, claim.fence, seq, NewEvent("log"), now=0.0)])
            self.told[claim.job_id, claim.fence] = seq

        self.attempt(pick, renew)

    def checkpoint(self, pick: int) -> None:
        step = pick % 5
        told = {"key": f"k-{step}", "step": step, "size": 1, "sha256": "", "metrics": {}}
        self.attempt(pick, lambda session, claim: checkpointing.add_checkpoint(session, claim, **told))

    def succeed(self, pick: int) -> None:
        file = Published("m", "k", 1, "", "text/plain")
        ended = {"files": [file], "metrics": {}, "lineage": {}}
        self.attempt(pick, lambda session, claim: publishing.succeed_job(session, claim, **ended))

    def end_cancelled(self, pick: int) -> None:
        """Only a trainer that was told to cancel ends so."""
        if self.rows().jobs[self.claim_at(pick).job_id].cancel_requested:
            self.attempt(
                pick, lambda session, claim: publishing.cancel_running_job(session, claim, files=[], metrics={})
            )

    def fail(self, pick: int, is_retryable: bool, seconds: float) -> None:
        error, job = WeightworksError("died"), self.rows().jobs[self.claim_at(pick).job_id]

        def fail(session: Session, claim: Claim) -> tuple[Claim, Status]:
            ended = attempts.fail_job(session, claim, error, is_retryable=is_retryable, retry_seconds=seconds)
            return claim, ended

        if found := self.attempt(pick, fail):
            claim, status = found
            left = is_retryable and claim.attempt < claim.max_attempts
            otherwise = Status.QUEUED if left else Status.FAILED
            paused = Status.PAUSED if is_retryable and job.pause_requested else otherwise
            assert status is (Status.CANCELLED if job.cancel_requested else paused)

    def release(self, pick: int) -> None:
        job = self.rows().jobs[self.claim_at(pick).job_id]
        status = self.attempt(pick, attempts.release_job)
        paused = Status.PAUSED if job.pause_requested else Status.QUEUED
        assert status in (None, Status.CANCELLED if job.cancel_requested else paused)

    def forgive(self, pick: int) -> None:
        self.attempt(pick, attempts.forgive_attempt)

    # What happens.

    def sweep(self, lost: set[int], *, is_stale: bool) -> None:
        """Some workers are found lost; or their leases were seen before they changed, and nothing may happen."""
        running = [job for job in self.rows().jobs.values() if job.status is Status.RUNNING]
        chosen = {running[pick % len(running)].id: running[pick % len(running)] for pick in lost if running}
        suspects = [Suspect(job.id, job.fence - is_stale, job.lease_expires_at or 0.0) for job in chosen.values()]
        for expected in (0 if is_stale else len(suspects), 0):
            with self.write() as session:
                swept = sweeping.sweep_expired(session, suspects)
            assert len(swept.requeued) + len(swept.ended) == expected

    def pass_time(self, seconds: float) -> None:
        """Or have the database's clock jump: it is the same to the rows."""
        moved = {"claimable_at": Job.claimable_at - seconds, "lease_expires_at": Job.lease_expires_at - seconds}
        with self.write() as session:
            session.execute(update(Job).values(moved))

    def burn(self, project: int) -> None:
        """Time on GPUs passes."""
        mine = select(Job.id).where(Job.project_id == f"p-{project}")
        with self.write() as session:
            earlier = Attempt.started_at - 60
            session.execute(update(Attempt).where(Attempt.job_id.in_(mine)).values(started_at=earlier))

    # What must hold.

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction, after which the rows are others."""
        self.current, self.current_waits = None, None
        with self.database.write() as session:
            yield session

    def rows(self) -> Rows:
        """The tables; nobody else writes them."""
        if self.current is None:
            with self.database.read() as session:
                self.current = Rows.read(session)
        return self.current

    def waits(self) -> dict[str, Wait]:
        """Why each queued job waits, as people are told."""
        if self.current_waits is None:
            rows, found = self.rows(), {}
            with self.database.read() as session:
                for project_id in rows.projects:
                    if queued := rows.of(project_id, Status.QUEUED):
                        told = {"defaults": UNLIMITED, "beat_seconds": BEAT_SECONDS}
                        found |= waits_of(session, project_id, queued, **told)
            self.current_waits = found
        return self.current_waits

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "before"):
            return
        rows = self.rows()
        for job in rows.jobs.values():
            check_job(rows, job)
            if self.before is not None and (was := self.before.jobs.get(job.id)) is not None:
                assert job.fence >= was.fence
                assert was.status not in TERMINAL or job.status is was.status or job.id in self.retried
        for project in rows.projects.values():
            running, unfinished = (len(rows.of(project.id, *found)) for found in ([Status.RUNNING], UNFINISHED))
            assert running <= (project.max_running_jobs or running)
            assert unfinished <= (project.max_unfinished_jobs or unfinished) + len(self.readmitted)
        self.before, self.retried = rows, set()

    @invariant()
    def every_queued_job_is_claimable_or_says_truly_why_not(self) -> None:
        if not hasattr(self, "before"):
            return
        rows, waits = self.rows(), self.waits()
        queued = [job for job in rows.jobs.values() if job.status is Status.QUEUED]
        assert waits.keys() == {job.id for job in queued}
        for job in queued:
            kept = [rows.reasons(job, worker) for worker in DEVICES]
            wait = waits[job.id].what
            assert (wait is WaitsFor.FREE_WORKER) is any(not reasons for reasons in kept), job.id
            assert wait is WaitsFor.FREE_WORKER or all(
                wait in reasons or WaitsFor.GPU_WORKER in reasons for reasons in kept
            )

    def teardown(self) -> None:
        """Whatever happened, workers that go on claiming and finishing leave nothing that could have run."""
        if not hasattr(self, "claims"):
            return
        idle = 0
        while idle < len(DEVICES):
            worker = list(DEVICES)[idle]
            with self.write() as session:
                claim = claiming.claim_job(session, owner=worker, devices=DEVICES[worker], lease_seconds=60)
            if claim is None:
                idle += 1
                continue
            idle = 0
            with self.write() as session:
                publishing.succeed_job(session, claim, files=[], metrics={}, lineage={})
        assert WaitsFor.FREE_WORKER not in {wait.what for wait in self.waits().values()}


def test_every_life_keeps_the_promises(database: Database) -> None:
    machine = type("Life", (Life,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or 8,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not EXAMPLES,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    with database.write() as session:
        session.execute(delete(WorkerSlot))
