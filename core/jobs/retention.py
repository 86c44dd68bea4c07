"""How much a project has stored, and what of it may go."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.jobs.models import Artifact, Checkpoint, File, Job, Upload, UploadPart
from core.jobs.status import UploadStatus


def stored_bytes(session: Session, project_id: str) -> int:
    """Bytes of a project's files, artifacts, checkpoints, and parts of uploads that are not complete.

    A content that several files share counts for each of them.
    """
    pending = (Upload.project_id == project_id, Upload.status == UploadStatus.PENDING)
    kinds: tuple[Any, ...] = (
        select(func.sum(File.bytes)).where(File.project_id == project_id),
        select(func.sum(Artifact.bytes)).join(Job, Artifact.job_id == Job.id).where(Job.project_id == project_id),
        select(func.sum(Checkpoint.bytes)).join(Job, Checkpoint.job_id == Job.id).where(Job.project_id == project_id),
        select(func.sum(UploadPart.bytes)).join(Upload, UploadPart.upload_id == Upload.id).where(*pending),
    )
    return sum(int(session.scalar(kind) or 0) for kind in kinds)
