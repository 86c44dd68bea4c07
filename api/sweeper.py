"""Looks, every few seconds and in every API process, for jobs that were lost and wake-ups that were."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.dependencies import Server
from core.jobs.leases import Suspect, insert_events, suspect_leases, sweep_expired
from core.jobs.quotas import Quotas
from core.jobs.waiting import waiting_devices
from core.jobs.workers import has_gone_workers, remove_gone

MOST_WAKES = 16  # a worker that was woken looks on until nothing is left
RENEWALS_MISSED = 3  # between two looks that see the same lease ended

log = logging.getLogger("weightworks.sweeper")


class Looks:
    """What a sweeper remembers of leases that look lost, so that a clock that jumps harms no living worker.

    The database's clock says that a lease has ended, but only this process's monotonic clock that its worker has let
    `apart` seconds pass without renewing it.
    """

    def __init__(self, *, apart: float) -> None:
        self._apart = apart
        self._first_seen: dict[Suspect, float] = {}

    def forget(self) -> None:
        """After a look that failed: no worker may have been able to renew either."""
        self._first_seen = {}

    def confirm(self, seen: Collection[Suspect], *, at: float) -> list[Suspect]:
        """Of what is seen at this moment, what was seen the same, at every look, for long enough."""
        self._first_seen = {one: self._first_seen.get(one, at) for one in seen}
        return [one for one, first in self._first_seen.items() if at - first > self._apart]


async def sweep_forever(server: Server) -> None:
    """Until cancelled. Sweeping is idempotent: any number of processes may do it."""
    looks = Looks(apart=RENEWALS_MISSED * server.settings.renew_seconds)
    while True:
        await asyncio.sleep(server.settings.sweep_seconds)
        try:
            await run_in_threadpool(sweep_once, server, looks)
        except SQLAlchemyError as error:
            looks.forget()
            log.warning("the sweeper could not reach the database: %s", str(error).partition("\n")[0])
        except Exception:  # whatever it is, the next sweep must come
            log.exception("the sweeper failed")


def sweep_once(server: Server, looks: Looks) -> None:
    """Take back lost leases, then wake a worker for each job that has waited for long; forget workers that are gone.

    It looks in a transaction that may write, as workers renew in one: while a lock keeps them from it, it waits too,
    and what it saw before then proves nothing.
    """
    asked_at = time.monotonic()
    with server.database.write() as session:
        if time.monotonic() - asked_at > server.settings.renew_seconds:
            looks.forget()
        seen = suspect_leases(session, lease_seconds=server.settings.lease_seconds)
        lost = looks.confirm(seen, at=time.monotonic())
    if lost:
        _take_back(server, lost)
    older_than, defaults = server.settings.sweep_seconds, Quotas.of_server(server.settings)
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
        insert_events(session, said)
        sweep_expired(session, lost)
    server.announce(session)
