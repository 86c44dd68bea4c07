"""How an attempt ends: what the trainer left is put into storage, and one transaction says what became of the job."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import WeightworksError
from core.jobs.artifacts import Published, list_artifacts
from core.jobs.attempts import fail_job, release_job
from core.jobs.database import AWAY
from core.jobs.dependencies import devices_waiting_for
from core.jobs.leases import LeaseLost
from core.jobs.models.results import Artifact
from core.jobs.publishing import cancel_running_job, succeed_job
from core.jobs.status import Status
from core.queue import wake
from core.storage import Storage, artifact_key, refusal_of
from worker.results import kept_results, results_of
from worker.supervisor import BEAT_SECONDS, Supervisor
from worker.trainers import UNSUPERVISED

BACK_OFF_SECONDS = (0.5, 2.0, 5.0)

log = logging.getLogger(__name__)


class TrainerError(WeightworksError):
    """An error as the trainer reported it."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        super().__init__(details["message"], param=details["param"], code=details["code"])
        self.details = dict(details)

    def as_dict(self) -> dict[str, Any]:
        """What the trainer said."""
        return self.details


def settle(supervisor: Supervisor, *, storage: Storage, folder: Path) -> None:
    """Write the end of the attempt that the supervisor watched. Raises LeaseLost, and then leaves no artifact.

    Whether a job that did not finish is cancelled, paused or queued again, its row says at that moment.
    """
    supervisor.finish_errands()
    supervisor.journal.insist(supervisor.register_checkpoints, is_over=supervisor.must_leave)
    supervisor.finish_errands()
    ending = supervisor.ending or {"type": "died"}
    if ending["type"] == "finished":
        _publish(supervisor, ending, storage=storage, folder=folder)
        return
    _clear(folder)
    if ending["type"] == "failed":
        _fail(supervisor, TrainerError(ending["error"]), is_retryable=ending["is_retryable"])
    elif (reason := _reason_to_release(supervisor, ending)) is not None:
        status = _close(supervisor, lambda session: release_job(session, supervisor.claim, reason=reason))
        if status is Status.QUEUED:
            wake(supervisor.claim.spec.get("device", "auto"))
    else:
        code = "out_of_memory" if supervisor.is_too_large else "trainer_died"
        _fail(supervisor, WeightworksError(_how_it_died(supervisor), code=code), is_retryable=True)


def _reason_to_release(supervisor: Supervisor, ending: Mapping[str, Any]) -> str | None:
    """Why the attempt does not count, if it does not."""
    if supervisor.is_draining:
        return "The worker leaves"
    if supervisor.is_fenced_off or supervisor.trainer.status == UNSUPERVISED << 8:
        return "The lease could not be renewed in time"
    if ending["type"] == "interrupted" or supervisor.is_told_to_leave:
        return "The trainer was told to stop"
    return None


def _how_it_died(supervisor: Supervisor) -> str:
    if supervisor.is_stuck:
        return "the trainer gave no sign of life any more, and was killed"
    if supervisor.is_too_large:
        return "the trainer took more memory than it may, and was killed: lower batch_size, or make the data smaller"
    return f"the trainer died: {how_it_ended(supervisor.trainer.status or 0)}"


def how_it_ended(status: int) -> str:
    """What a wait status says, in words."""
    if not os.WIFSIGNALED(status):
        return f"exit status {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name if number in set(signal.Signals) else "unknown"
    hint = "; it may have run out of memory" if number == signal.SIGKILL else ""
    return f"killed by signal {number} ({name}){hint}"


def _fail(supervisor: Supervisor, error: WeightworksError, *, is_retryable: bool) -> None:
    fail = partial(fail_job, is_retryable=is_retryable, retry_seconds=supervisor.retry_seconds)
    status = _close(supervisor, lambda session: fail(session, supervisor.claim, error))
    log.info("job %s: the attempt failed, the job is %s: %s", supervisor.claim.job_id, status, error.message)


def _publish(supervisor: Supervisor, ending: Mapping[str, Any], *, storage: Storage, folder: Path) -> None:
    """Move the artifacts into storage, then publish them with the job's end; all or nothing."""
    claim = supervisor.claim
    files = [Published(key=artifact_key(claim.job_id, claim.fence, file["path"]), **file) for file in ending["files"]]
    results = None if ending["is_cancelled"] else results_of(supervisor, files)
    try:
        with contextlib.ExitStack() as stack:
            if results is not None:
                kept = partial(kept_results, supervisor, results, storage=storage, folder=folder)
                _try_again(lambda: stack.enter_context(kept()), supervisor)
            for file in files:
                _try_again(partial(storage.keep, folder / "artifacts" / file.path, file.key), supervisor)
            superseded, dependents = _close(supervisor, partial(_end, supervisor, ending, files))
    except LeaseLost:
        _forget(storage, _unpublished(supervisor, files))
        raise
    except OSError as error:
        _forget(storage, _unpublished(supervisor, files))
        _clear(folder)
        reason = refusal_of(error) or WeightworksError(f"the artifacts could not be stored: {error}")
        _fail(supervisor, reason, is_retryable=True)
        return
    _forget(storage, superseded)
    for device in dependents:
        wake(device)


def _unpublished(supervisor: Supervisor, files: Sequence[Published]) -> list[str]:
    """The keys that no row points to, as far as can be told now.

    A commit whose answer was lost has published them, and what is written after it finds the job over: LeaseLost.
    """
    keys = [file.key for file in files]
    try:
        published = supervisor.journal.insist(partial(_published, supervisor, keys), is_over=supervisor.must_leave)
    except AWAY:
        return []
    return [key for key in keys if key not in published]


def _published(supervisor: Supervisor, keys: Sequence[str]) -> set[str]:
    with supervisor.journal.read() as session:
        return set(session.scalars(select(Artifact.key).where(Artifact.key.in_(keys))))


def _end(
    supervisor: Supervisor, ending: Mapping[str, Any], files: Sequence[Published], session: Session
) -> tuple[list[str], list[str]]:
    """Answers the keys of an earlier end's artifacts, and the devices of the jobs that can start now."""
    claim = supervisor.claim
    superseded = {artifact.key for artifact in list_artifacts(session, claim.job_id)} - {file.key for file in files}
    if ending["is_cancelled"]:
        cancel_running_job(session, claim, files=files, metrics=ending["metrics"])
        return sorted(superseded), []
    succeed_job(session, claim, files=files, metrics=ending["metrics"], lineage=supervisor.lineage)
    return sorted(superseded), devices_waiting_for(session, claim.job_id)


def _try_again(action: Callable[[], None], supervisor: Supervisor) -> None:
    """Do what storage may refuse for a while, and keep the lease meanwhile.

    Raises OSError when storage goes on refusing, and LeaseLost.
    """
    for seconds in BACK_OFF_SECONDS:
        try:
            return supervisor.wait_for(action)
        except OSError as error:
            log.warning("job %s: storage refuses: %s", supervisor.claim.job_id, error)
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            supervisor.beat()
            time.sleep(BEAT_SECONDS)
    return supervisor.wait_for(action)


def _close(supervisor: Supervisor, end: Callable[[Session], Any]) -> Any:
    """Write an end however long the database is away: as long as nobody took the job, it can still be said."""
    journal = supervisor.journal
    return journal.insist(lambda: journal.close(end), is_over=supervisor.must_leave)


def _clear(folder: Path) -> None:
    """Remove what the attempt wrote: on a disk that is full, the database may need the room to say so."""
    shutil.rmtree(folder, ignore_errors=True)


def _forget(storage: Storage, keys: Sequence[str]) -> None:
    for key in keys:
        with contextlib.suppress(OSError):
            storage.delete(key)
