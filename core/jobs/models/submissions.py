"""Submissions, so that a repeat of one finds what the first made."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.jobs.models.base import Base


class IdempotencyKey(Base):
    """A client's name for a submission, so that a repeat finds what the first made."""

    __tablename__ = "idempotency_keys"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_sha256: Mapped[str]
    resource_id: Mapped[str]
    created_at: Mapped[int]
    __table_args__ = (UniqueConstraint("project_id", "resource_id"),)


class Submission(Base):
    """What a submission without an Idempotency-Key made, so that a client's repeat of it finds that."""

    __tablename__ = "submissions"
    resource_id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str]
    body_sha256: Mapped[str]
    retry_count: Mapped[int]
    created_at: Mapped[float]
    __table_args__ = (Index("ix_submissions_repeat", "key_id", "body_sha256", "created_at"),)
