"""Attempts' folders on this machine: removed when an attempt ends, and later where its worker could not."""

from __future__ import annotations

import contextlib
import shutil

from core.jobs.database import Database
from core.jobs.sweeping import fences_at_rest
from core.storage import Storage


def remove_folders(storage: Storage, job_id: str, *, up_to: int) -> None:
    """Remove the folders of a job's attempts up to this fence; a later one may be at work already."""
    runs = storage.scratch / "runs" / job_id
    for folder in runs.glob("[0-9]*"):
        if int(folder.name) <= up_to:
            shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        runs.rmdir()


def remove_left_folders(database: Database, storage: Storage) -> None:
    """Remove the folders of all jobs that nobody works at: of killed workers whose jobs were then cancelled, or failed.

    Raises what the database raises while it is away.
    """
    found = [folder.name for folder in (storage.scratch / "runs").glob("*")]
    if not found:
        return
    with database.read() as session:
        at_rest = fences_at_rest(session, found)
    for job_id, fence in at_rest.items():
        remove_folders(storage, job_id, up_to=fence)
