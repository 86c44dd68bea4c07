"""Space made free by hand: jobs with all they left, and checkpoints."""

from __future__ import annotations

from fastapi import APIRouter

from api.answers.answer import Deleted
from api.dependencies import ServerDep, Writer
from core.jobs import deletion
from core.storage import job_folder

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@router.delete("")
def delete_job(job_id: str, caller: Writer, server: ServerDep) -> Deleted:
    """Delete an ended job with its model, artifacts, checkpoints, samples and events.

    409 while it has not ended, or while an unfinished job needs its weights. Models that were made from it stay.
    """
    with server.database.write() as session:
        deletion.delete_job(session, caller.project_id, job_id)
    server.storage.delete_folder(job_folder(job_id))
    return Deleted(id=job_id, object="job", deleted=True)


@router.delete("/checkpoints/{checkpoint_id}")
def delete_checkpoint(job_id: str, checkpoint_id: str, caller: Writer, server: ServerDep) -> Deleted:
    """Delete a checkpoint of an ended job; a retry then goes on from an earlier one, or begins anew."""
    with server.database.write() as session:
        key = deletion.delete_checkpoint(session, caller.project_id, job_id, checkpoint_id)
    server.storage.delete(key)
    return Deleted(id=checkpoint_id, object="job.checkpoint", deleted=True)
