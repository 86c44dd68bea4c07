"""What a worker does when it is told to look: claim a job, have it trained, and look again until there is none."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from core.errors import WeightworksError
from core.jobs.attempts import fail_job, release_job
from core.jobs.claiming import claim_job
from core.jobs.database import AWAY, Database
from core.jobs.leases import Claim, LeaseLost
from core.jobs.quotas import Quotas
from core.progress import Publisher
from core.settings import Settings
from core.storage import open_storage, refusal_of
from worker.endings import settle
from worker.journal import Journal, first_line
from worker.memory import allowance
from worker.presence import Presence
from worker.processes import sweep_orphans
from worker.scratch import remove_folders, remove_left_folders
from worker.supervisor import Supervisor
from worker.trainers import Zygote, ZygoteDied

UNREACHABLE = "The database could not be reached in time"

log = logging.getLogger(__name__)


class Worker:
    """One slot: one job at a time, one warm fork server. What it tells of itself others see in the table of workers.

    `drain` is a descriptor that becomes readable when the worker must leave.
    """

    def __init__(self, settings: Settings, *, drain: int, slots: int = 1) -> None:
        # In containers a host's name and a process's number come again, with the next worker or beside this one.
        self.owner = f"{socket.gethostname()}-{secrets.token_hex(3)}-{os.getpid()}"
        self.zygote = Zygote()
        self._settings = settings
        self._memory_bytes = allowance(settings.trainer_memory_bytes, slots=slots)
        self._drain = drain
        self._database = Database(settings.database_url)
        self._publisher = Publisher(settings.redis_url)
        self._storage = open_storage(settings, retry_seconds=settings.s3_retry_seconds)
        self._quotas = Quotas.of_server(settings)
        self._is_looking = threading.Lock()
        self._presence = Presence(
            self.owner,
            self._database,
            beat_seconds=settings.renew_seconds,
            has_gpu=lambda: self.zygote.has_gpu if self.zygote.is_ready else None,
            is_leaving=self.is_draining,
        )

    def start(self) -> None:
        """Clear up after workers that were killed, warm up, and look now and then without being told.

        Wake-ups come through Redis, which may hang or lose them.
        """
        sweep_orphans()
        self.zygote.start()
        self._presence.start()
        threading.Thread(target=self._look_now_and_then, name="look", daemon=True).start()

    def look(self) -> None:
        """Train what can be claimed, until there is nothing or the worker must leave."""
        with self._is_looking:
            try:
                while self._takes_jobs() and (held := self._claim()) is not None:
                    self._attempt(*held)
            except (SQLAlchemyError, OSError) as error:
                log.warning("no job can be claimed now: %s", first_line(error))
            except ZygoteDied as error:
                log.error("no trainer can be started: %s", error)

    def _takes_jobs(self) -> bool:
        return not self.is_draining() and not self._presence.is_asked_to_drain

    def is_draining(self) -> bool:
        """Whether the worker must leave."""
        return bool(select.select([self._drain], [], [], 0)[0])

    def close(self) -> None:
        """Wait for the attempt that runs, which drains; then end the fork server."""
        with self._is_looking:
            if self._presence.is_alive():
                self._presence.close()
            self.zygote.close()
            self._database.close()
            self._publisher.close()

    def _look_now_and_then(self) -> None:
        while not self.is_draining():
            select.select([self._drain], [], [], self._settings.sweep_seconds)
            if not self._is_looking.locked():
                self.look()
            with contextlib.suppress(SQLAlchemyError, OSError):
                remove_left_folders(self._database, self._storage)
                self._storage.tidy()
        threading.Event().wait()  # a fork server that this thread started again would die with it

    def _claim(self) -> tuple[Claim, float] | None:
        """A job, and until when it is ours at least by this machine's monotonic clock."""
        if not self.zygote.wait_ready(stop=self._drain):
            return None
        if self._settings.ready_file is not None:
            self._settings.ready_file.touch()
        devices = ["auto", "cpu", "cuda"] if self.zygote.has_gpu else ["auto", "cpu"]
        asked_at, seconds = time.monotonic(), self._settings.lease_seconds
        with self._database.write() as session:
            claim = claim_job(session, owner=self.owner, devices=devices, lease_seconds=seconds, defaults=self._quotas)
        return None if claim is None else (claim, asked_at + seconds)

    def _attempt(self, claim: Claim, lease_ends: float) -> None:
        """Train a claimed job, whatever comes of it."""
        log.info("job %s: attempt %d under fence %d", claim.job_id, claim.attempt, claim.fence)
        journal = Journal(
            claim,
            self._database,
            self._publisher,
            lease_seconds=self._settings.lease_seconds,
            lease_ends=lease_ends,
        )
        try:
            self._supervise(claim, journal)
        except LeaseLost:
            log.warning("job %s: the lease of fence %d was lost", claim.job_id, claim.fence)
        except AWAY as error:
            log.warning("job %s: the database was away for too long: %s", claim.job_id, first_line(error))
            self._insist(journal, lambda session: release_job(session, claim, reason=UNREACHABLE))
        except Exception as error:
            log.exception("job %s: the attempt went wrong", claim.job_id)
            failure = WeightworksError(f"the worker failed: {first_line(error)}", code="worker_failed")
            reason = refusal_of(error) or failure
            fail = partial(fail_job, is_retryable=True, retry_seconds=self._settings.retry_seconds)
            self._insist(journal, lambda session: fail(session, claim, reason))
        finally:
            remove_folders(self._storage, claim.job_id, up_to=claim.fence)

    def _insist(self, journal: Journal, end: Callable[[Session], object]) -> None:
        """Write the attempt's end however long the database is away, unless the worker must leave."""
        with contextlib.suppress(LeaseLost, *AWAY):
            journal.insist(lambda: journal.close(end), is_over=self.is_draining)

    def _supervise(self, claim: Claim, journal: Journal) -> None:
        folder = self._storage.run_folder(claim.job_id, claim.fence)
        trainer = self.zygote.fork(f"{claim.job_id}-{claim.fence}")
        supervisor = Supervisor(
            trainer,
            journal,
            folder=folder,
            settings=self._settings,
            memory_bytes=self._memory_bytes,
            storage=self._storage,
            zygote=self.zygote,
            drains=[self._drain, self._presence.fileno()],
        )
        try:
            try:
                supervisor.watch()
            finally:
                supervisor.close()
            settle(supervisor, storage=self._storage, folder=Path(folder))
        finally:
            supervisor.leave()
