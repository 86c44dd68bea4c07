"""A job's metrics, step by step, as a file of its project: the content is in storage before the row is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from core.jobs.artifacts import Published
from core.jobs.database import AWAY
from core.jobs.files import STEP_METRICS, is_content_used
from core.jobs.models.jobs import Job
from core.storage import Storage, file_key
from worker.supervisor import Supervisor


def results_of(supervisor: Supervisor, files: Sequence[Published]) -> Published | None:
    """The artifact that is to be a file of the project, where the fine-tuning API was asked for the job."""
    found = next((file for file in files if file.path == STEP_METRICS), None)

    def look() -> bool:
        with supervisor.journal.read() as session:
            return session.get_one(Job, supervisor.claim.job_id).request is not None

    if found is None or not supervisor.journal.insist(look, is_over=supervisor.must_leave):
        return None
    return found


def kept_results(
    supervisor: Supervisor, results: Published, *, storage: Storage, folder: Path
) -> AbstractContextManager[None]:
    """Have the content in storage while the block writes its row, and after it; if that fails, not for its sake.

    It is laid aside, since the artifacts are moved away meanwhile.
    """
    aside = folder / STEP_METRICS
    shutil.copyfile(folder / "artifacts" / results.path, aside)
    return storage.kept(aside, file_key(results.sha256), is_used=partial(_is_used, supervisor, results.sha256))


def _is_used(supervisor: Supervisor, sha256: str) -> bool:
    """Whether a row has this content; where that cannot be told it stays, and the collector looks again."""
    try:
        with supervisor.journal.read() as session:
            return is_content_used(session, sha256)
    except AWAY:
        return True
