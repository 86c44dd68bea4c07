"""The files that a job published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs.models.results import Artifact


@dataclass(frozen=True)
class Published:
    """A file that was put into storage."""

    path: str
    key: str
    bytes: int
    sha256: str
    media_type: str


def publish(session: Session, job_id: str, files: Sequence[Published]) -> None:
    """The job's files are these now, in place of what an earlier attempt published."""
    for old in session.scalars(select(Artifact).where(Artifact.job_id == job_id)):
        session.delete(old)
    session.flush()
    for file in files:
        session.add(
            Artifact(
                job_id=job_id,
                path=file.path,
                key=file.key,
                bytes=file.bytes,
                sha256=file.sha256,
                media_type=file.media_type,
            )
        )


def list_artifacts(session: Session, job_id: str) -> list[Artifact]:
    """The job's published files, by path."""
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.path)))
