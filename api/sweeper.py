"""Looks, every few seconds and in every API process, for jobs that were lost and wake-ups that were."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.dependencies import Server
from core.jobs.details import waiting_devices
from core.jobs.leases import sweep_expired

MOST_WAKES = 16  # a worker that was woken looks on until nothing is left

log = logging.getLogger("weightworks.sweeper")


async def sweep_forever(server: Server) -> None:
    """Until cancelled. Sweeping is idempotent: any number of processes may do it."""
    while True:
        await asyncio.sleep(server.settings.sweep_seconds)
        try:
            await run_in_threadpool(sweep_once, server)
        except SQLAlchemyError as error:
            log.warning("the sweeper could not reach the database: %s", str(error).partition("\n")[0])
        except Exception:  # whatever it is, the next sweep must come
            log.exception("the sweeper failed")


def sweep_once(server: Server) -> None:
    """Take back expired leases, then wake a worker for each job that has waited for long."""
    with server.database.write() as session:
        sweep_expired(session)
    server.announce(session)
    with server.database.read() as session:
        devices = waiting_devices(session, older_than=server.settings.sweep_seconds, limit=MOST_WAKES)
    server.announce(session, wake=devices)
