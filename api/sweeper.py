"""Looks, every few seconds and in every API process, for jobs that were lost and wake-ups that were."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.dependencies import Server
from core.jobs import fetches
from core.jobs.quotas import Quotas
from core.jobs.sweeping import Suspect, held_leases, suspect_leases, sweep_expired
from core.jobs.waiting import waiting_devices
from core.jobs.workers import has_gone_workers, remove_gone

MOST_WAKES = 16  # a worker that was woken looks on until nothing is left

log = logging.getLogger("weightworks.sweeper")


class Looks:
    """What a sweeper remembers of leases, so that a clock that jumps harms no living worker.

    The database's clock may say that a lease has ended: only when this process's monotonic clock, too, has seen it
    unchanged for `lease_seconds`, at moments at which workers could renew, is its worker lost.
    """

    def __init__(self, *, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._unchanged: dict[Suspect, float] = {}  # for how long
        self._last_at: float | None = None

    def skip(self) -> None:
        """What passes until the next look counts for nobody: no worker may have been able to renew either."""
        self._last_at = None

    def confirm(self, seen: Collection[Suspect], *, at: float) -> list[Suspect]:
        """Of the leases at this moment, those that were the same for long enough."""
        passed = 0.0 if self._last_at is None else at - self._last_at
        self._last_at = at
        self._unchanged = {one: self._unchanged[one] + passed if one in self._unchanged else 0.0 for one in seen}
        return [one for one, seconds in self._unchanged.items() if seconds > self._lease_seconds]


async def sweep_forever(server: Server) -> None:
    """Until cancelled. Sweeping is idempotent: any number of processes may do it."""
    looks = Looks(lease_seconds=server.settings.lease_seconds)
    while True:
        await asyncio.sleep(server.settings.sweep_seconds)
        try:
            await run_in_threadpool(sweep_once, server, looks)
        except SQLAlchemyError as error:
            looks.skip()
            log.warning("the sweeper could not reach the database: %s", str(error).partition("\n")[0])
        except Exception:  # whatever it is, the next sweep must come
            log.exception("the sweeper failed")


def sweep_once(server: Server, looks: Looks) -> None:
    """Take back lost leases, then wake a worker for each job that has waited for long; forget workers that are gone.

    It looks in a transaction that may write, as workers renew in one: while a lock keeps them from it, it waits too,
    and the time that it waited proves nothing.
    """
    asked_at = time.monotonic()
    with server.database.write() as session:
        if time.monotonic() - asked_at > server.settings.renew_seconds:
            looks.skip()
        unchanged = looks.confirm(held_leases(session), at=time.monotonic())
        suspects = suspect_leases(session, lease_seconds=server.settings.lease_seconds) if unchanged else []
    lost = [one for one in unchanged if one in suspects]
    if lost:
        _take_back(server, lost)
    older_than, defaults = server.settings.sweep_seconds, Quotas.of_server(server.settings)
    _fail_lost_fetches(server)
    with server.database.read() as session:
        devices = waiting_devices(session, older_than=older_than, limit=MOST_WAKES, defaults=defaults)
        is_any_gone = has_gone_workers(session, beat_seconds=server.settings.renew_seconds)
    server.announce(session, wake=devices)
    if is_any_gone:
        with server.database.write() as session:
            remove_gone(session, beat_seconds=server.settings.renew_seconds)


def _take_back(server: Server, lost: Sequence[Suspect]) -> None:
    """Sweep; what the lost workers had told only Redis is saved with it, for some of these jobs end here."""
    said = [event for one in lost for event in server.publisher.published(one.job_id)]
    with server.database.write() as session:
        sweep_expired(session, lost, said)
    server.announce(session)


def _fail_lost_fetches(server: Server) -> None:
    with server.database.read() as session:
        if not fetches.has_lost(session):
            return
    with server.database.write() as session:
        fetches.fail_lost(session)
