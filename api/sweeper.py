"""Looks, every few seconds and in every API process, for jobs that were lost and wake-ups that were."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.dependencies import Server
from core import queue
from core.jobs.events import added_events
from core.jobs.leases import sweep_expired
from core.jobs.store import stale_devices

log = logging.getLogger("weightworks.sweeper")


async def sweep_forever(server: Server) -> None:
    """Until cancelled. Sweeping is idempotent: any number of processes may do it."""
    while True:
        await asyncio.sleep(server.settings.sweep_seconds)
        try:
            await run_in_threadpool(sweep_once, server)
        except SQLAlchemyError as error:
            log.warning("the sweeper could not reach the database: %s", error)


def sweep_once(server: Server) -> None:
    """Take back expired leases, then wake a worker for each kind of job that has waited for long."""
    with server.database.write() as session:
        sweep_expired(session)
    server.publisher.publish(added_events(session))
    with server.database.read() as session:
        devices = stale_devices(session, older_than=server.settings.sweep_seconds)
    for device in devices:
        queue.wake(device)
