"""What of the storage has a row that points to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs.models.files import File, UploadPart
from core.jobs.models.jobs import Event, Job
from core.jobs.models.results import Artifact, Checkpoint
from core.jobs.status import TERMINAL, Status

AT_ONCE = 500  # ids in a query


@dataclass
class Pointers:
    """What points into a job's part of the storage.

    `live_fence`: of the attempt that runs now, whose worker may have put things there that it has not written down;
    what another fence left will not be written down any more, but for samples: while the job `is_unfinished`, the next
    worker may find in Redis what the last one told of them. `samples`: fence and path.
    """

    live_fence: int | None
    is_unfinished: bool
    keys: set[str] = field(default_factory=set)
    samples: set[tuple[int, str]] = field(default_factory=set)


def known_contents(session: Session, hashes: Iterable[str]) -> set[str]:
    """Those of the SHA-256 that a file has."""
    return _among(session, File.sha256, hashes)


def known_parts(session: Session, part_ids: Iterable[str]) -> set[str]:
    """Those of the ids that are parts of an upload."""
    return _among(session, UploadPart.id, part_ids)


def pointers_of(session: Session, job_ids: Sequence[str]) -> dict[str, Pointers]:
    """What points into the storage of these jobs, by id; of a job that is not there any more, nothing.

    For what was listed before: the fence tells of what may have been published since.
    """
    found: dict[str, Pointers] = {}
    for job_id, status, fence in session.execute(select(Job.id, Job.status, Job.fence).where(Job.id.in_(job_ids))):
        found[job_id] = Pointers(fence if status is Status.RUNNING else None, status not in TERMINAL)
    for table in (Artifact, Checkpoint):
        for job_id, key in session.execute(select(table.job_id, table.key).where(table.job_id.in_(job_ids))):
            if job_id in found:
                found[job_id].keys.add(key)
    samples = select(Event.job_id, Event.fence, Event.data).where(Event.type == "sample")
    for job_id, fence, data in session.execute(samples.where(Event.job_id.in_(job_ids))):
        if job_id in found:
            found[job_id].samples.add((fence, data["path"]))
    return found


def _among(session: Session, column: Any, values: Iterable[str]) -> set[str]:
    wanted, found = list(values), set()
    for start in range(0, len(wanted), AT_ONCE):
        found |= set(session.scalars(select(column).where(column.in_(wanted[start : start + AT_ONCE]))))
    return found
