"""Removes, now and then and in every API process, what the settings say is old, and what nothing points to.

docs/retention.md holds the rules. Rows go first, in a transaction that looks again; then what they pointed to. What a
kill leaves between the two has no row any more, and is found as an orphan.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api.collected import Collected
from api.contents import forget
from api.dependencies import Server
from api.orphans import collect_orphans
from core.jobs import deliveries, fetches, retention, uploads
from core.jobs.models.jobs import Event
from core.jobs.models.results import Artifact, Checkpoint
from core.jobs.quotas import GPU_DAYS
from core.storage import part_key, refusal_of, sample_key

log = logging.getLogger("weightworks.collector")


async def collect_forever(server: Server) -> None:
    """Until cancelled. Collecting is idempotent: any number of processes may do it at once."""
    while True:
        await asyncio.sleep(server.settings.collect_seconds)
        try:
            if collected := await run_in_threadpool(collect_once, server):
                log.info("collected: %s", collected)
        except SQLAlchemyError as error:
            log.warning("the collector could not reach the database: %s", str(error).partition("\n")[0])
        except Exception as error:  # whatever it is, the next collection must come
            if (refusal := refusal_of(error)) is not None:
                log.warning("the collector: %s", refusal.message)
            else:
                log.exception("the collector failed")


def collect_once(server: Server) -> Collected:
    """Remove all that may go; answers what did."""
    collected = Collected()
    for step in (_uploads, _submissions, _files, _results, _events, _deliveries, _fetches, collect_orphans):
        step(server, collected)
    return collected


def _uploads(server: Server, collected: Collected) -> None:
    with server.database.write() as session:
        parts = uploads.expire_uploads(session)
        collected.add(
            "uploads", count=retention.drop_uploads(session, seconds=server.settings.keep_submissions_seconds)
        )
    for part_id, size in parts:
        server.storage.delete(part_key(part_id))
        collected.add("parts", size=size)


def _submissions(server: Server, collected: Collected) -> None:
    with server.database.write() as session:
        count = retention.drop_submissions(session, seconds=server.settings.keep_submissions_seconds)
        retention.drop_spent_gpu(session, days=GPU_DAYS)
    collected.add("submissions", count=count)


def _files(server: Server, collected: Collected) -> None:
    with server.database.read() as session:
        expired = retention.expired_files(session)
    for file_id in expired:
        with server.database.write() as session:
            sha256 = retention.delete_expired_file(session, file_id)
        if sha256 is not None:
            collected.add("files", size=forget(server, sha256))


def _results(server: Server, collected: Collected) -> None:
    """Checkpoints and artifacts of jobs that ended long ago."""
    keep = server.settings
    for what, table, drop, days in (
        ("checkpoints", Checkpoint, retention.drop_checkpoints, keep.keep_checkpoints_days),
        ("artifacts", Artifact, retention.drop_artifacts, keep.keep_artifacts_days),
    ):
        for job_id in _jobs(server, table, days):
            with server.database.write() as session:
                keys = drop(session, job_id, days=days)
            _forget(server, collected, what, keys)


def _events(server: Server, collected: Collected) -> None:
    days = server.settings.keep_events_days
    for job_id in _jobs(server, Event, days):
        count = -1
        while count:
            with server.database.write() as session:
                count, samples = retention.drop_events(session, job_id, days=days)
            collected.add("events", count=count)
            keys = [(sample_key(job_id, fence, data["path"]), data["bytes"]) for fence, data in samples]
            _forget(server, collected, "samples", keys)


def _deliveries(server: Server, collected: Collected) -> None:
    """What webhooks' receivers were told long ago."""
    days, count = server.settings.keep_deliveries_days, -1
    while days and count:
        with server.database.write() as session:
            count = deliveries.drop_deliveries(session, days=days)
        collected.add("deliveries", count=count)


def _fetches(server: Server, collected: Collected) -> None:
    """What came long ago of models that are not here."""
    with server.database.write() as session:
        count = fetches.drop_fetches(session)
    collected.add("fetches", count=count)


def _jobs(server: Server, table: type[Checkpoint | Artifact | Event], days: float) -> Sequence[str]:
    """The jobs that have something to be removed; none where it is kept for ever."""
    if days == 0:
        return []
    with server.database.read() as session:
        return retention.jobs_to_thin(session, table, days=days)


def _forget(server: Server, collected: Collected, what: str, keys: retention.Keys) -> None:
    for key, size in keys:
        server.storage.delete(key)
        collected.add(what, size=size)
