"""Submissions of jobs that are written together: one transaction for all that came during the last one.

Each is answered only once it is committed. What a submission costs is mostly what a transaction costs, and that is
shared; so is looking, afterwards, at what the answers tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import submission
from api.announcing import Announcer
from api.answers.jobs import JobObject, job_objects
from api.checking import UNCHECKED, Verdict
from api.idempotency import Envelope
from core.errors import NotFound, WeightworksError
from core.jobs.database import AWAY, Database
from core.jobs.events import added_events
from core.jobs.models.jobs import Job
from core.jobs.quotas import Quotas, admit_jobs
from core.jobs.repeats import Tries
from core.jobs.store import new_job, write_jobs
from core.jobs.workers import count_living
from core.settings import Settings
from core.spec import MethodSpec

DEADLOCK = "40P01"  # PostgreSQL's word for it


@dataclass(frozen=True)
class Submission:
    """A job as someone submits it, and what is to be said of its data.

    At the fine-tuning API it also has a `request`, in that API's words, and what was `sent`: only that is the same in
    each try, since a seed that nobody gave is drawn.
    """

    envelope: Envelope
    spec: MethodSpec
    verdict: Verdict = UNCHECKED
    request: Mapping[str, Any] | None = None
    sent: Mapping[str, Any] | None = None

    @property
    def sha256(self) -> str:
        """The fingerprint of what was submitted."""
        return self.envelope.sha256_of(self.spec.model_dump(mode="json") if self.sent is None else self.sent)


@dataclass
class _Drafts:
    """What a transaction is about to write."""

    tries: Tries
    jobs: list[tuple[Job, Mapping[str, str]]] = field(default_factory=list)
    warnings: dict[str, Sequence[str]] = field(default_factory=dict)  # by job


class _Spoilt(Exception):  # noqa: N818 - said in the past tense
    """Something in a transaction went wrong before its commit: nothing of it was written."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Submissions:
    """Called with submissions, it makes them, each once, and gives the jobs that they made, or why not."""

    def __init__(self, database: Database, announcer: Announcer, settings: Settings) -> None:
        self._database = database
        self._announcer = announcer
        self._settings = settings
        self._quotas = Quotas.of_server(settings)

    def __call__(self, submissions: Sequence[Submission]) -> list[JobObject | Exception]:
        """In one transaction; if that fails before its commit, each in one of its own.

        One whose commit fails is not tried again: it may have been made all the same.
        """
        try:
            made = self._make(submissions)
        except _Spoilt:
            made = [self._make_alone(one) for one in submissions]
        return self._show(submissions, made)

    def _make_alone(self, one: Submission) -> str | Exception:
        try:
            return self._make([one])[0]
        except _Spoilt as spoilt:
            return spoilt.reason
        except Exception as error:
            return error

    def _make(self, submissions: Sequence[Submission]) -> list[str | Exception]:
        """The ids of the jobs, committed; or why one was refused. Raises _Spoilt, or whatever a commit raises."""
        with self._database.write() as session:
            try:
                made, drafts = self._write(session, submissions)
            except Exception as error:
                if isinstance(error, AWAY) and not _is_deadlock(error):
                    raise  # the next transaction would not find it either
                raise _Spoilt(error) from error
        self._announce(session, drafts)
        return made

    def _write(self, session: Session, submissions: Sequence[Submission]) -> tuple[list[str | Exception], _Drafts]:
        sha256s = [one.sha256 for one in submissions]
        pairs = list(zip(submissions, sha256s, strict=True))
        unnamed = [one.envelope.sent(sha256) for one, sha256 in pairs if one.envelope.key is None]
        drafts = _Drafts(Tries(session, unnamed))
        made: list[str | Exception] = []
        for one, sha256 in pairs:
            try:
                made.append(self._draft(session, one, sha256, drafts))
            except WeightworksError as error:  # before anything of this one is written
                made.append(error)
        write_jobs(session, drafts.jobs, now=drafts.tries.now, warnings=drafts.warnings)
        drafts.tries.write()
        return made, drafts

    def _draft(self, session: Session, one: Submission, sha256: str, drafts: _Drafts) -> str:
        envelope, spec = one.envelope, one.spec
        project_id = envelope.caller.project_id
        with session.no_autoflush:  # what is drafted is written at once, at the end
            known = envelope.find(session, drafts.tries, sha256)
            if known is not None:
                return known
            one.verdict.enforce()
            checked = submission.check_submission(session, project_id, spec)
        admit_jobs(session, project_id, devices=[spec.device], defaults=self._quotas)
        now, most = drafts.tries.now, self._settings.max_attempts
        job = new_job(project_id=project_id, spec=spec, max_attempts=most, now=now, request=one.request)
        session.add(job)  # so that a quota counts it
        drafts.jobs.append((job, checked.needs))
        drafts.warnings[job.id] = one.verdict.warnings
        envelope.remember(session, drafts.tries, sha256, job.id)
        return job.id

    def _announce(self, session: Session, drafts: _Drafts) -> None:
        """Tell of the jobs, and wake as many workers as there are, or as there are jobs."""
        count = Counter(job.device for job, _ in drafts.jobs)
        most = 1
        if len(drafts.jobs) > 1:
            with self._database.read() as another:
                most = max(1, count_living(another, beat_seconds=self._settings.renew_seconds))
        wake = [device for device, jobs in count.items() for _ in range(min(jobs, most))]
        self._announcer.announce(added_events(session), wake)

    def _show(self, submissions: Sequence[Submission], made: Sequence[str | Exception]) -> list[JobObject | Exception]:
        ids = defaultdict(list)
        for one, job_id in zip(submissions, made, strict=True):
            if isinstance(job_id, str):
                ids[one.envelope.caller.project_id].append(job_id)
        shown: dict[str, JobObject | Exception] = {}
        with self._database.read() as session:
            for project_id, theirs in ids.items():
                mine = select(Job).where(Job.project_id == project_id, Job.id.in_(theirs))
                objects = job_objects(session, session.scalars(mine).all(), self._settings)
                shown |= {job.id: job for job in objects}
        return [one if isinstance(one, Exception) else shown.get(one) or _gone(one) for one in made]


def _gone(job_id: str) -> NotFound:
    return NotFound(f"there is no job '{job_id}'", param="job_id")


def _is_deadlock(error: Exception) -> bool:
    return getattr(getattr(error, "orig", None), "sqlstate", None) == DEADLOCK
