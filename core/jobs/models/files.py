"""Files, and the ways in which they come: whole, in parts, or from a hub."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.jobs.models.base import Base, by_value
from core.jobs.status import UploadStatus


class File(Base):
    """An uploaded file. Its content lies in storage under its hash; two files may share it."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    profile: Mapped[dict[str, Any] | None]
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    __table_args__ = (
        Index("ix_files_list", "project_id", "created_at", "id"),
        Index("ix_files_purpose", "project_id", "purpose", "created_at", "id"),
        Index("ix_files_expiry", "expires_at"),
    )


class Upload(Base):
    """A file that comes in parts, and may be gone on with after a cut."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    mime_type: Mapped[str]
    bytes: Mapped[int]
    status: Mapped[UploadStatus] = mapped_column(by_value(UploadStatus, name="upload_status"))
    file_id: Mapped[str | None]
    file_seconds: Mapped[int | None]  # how long the file is kept once it is whole; null: until it is deleted
    created_at: Mapped[int]
    expires_at: Mapped[int]
    __table_args__ = (
        Index("ix_uploads_list", "project_id", "created_at", "id"),
        Index("ix_uploads_expiry", "status", "expires_at"),
    )


class UploadPart(Base):
    """A part of an upload that has arrived whole."""

    __tablename__ = "upload_parts"
    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    bytes: Mapped[int]
    sha256: Mapped[str]
    md5: Mapped[str]
    created_at: Mapped[int]


class ModelFetch(Base):
    """A base model that is on its way from a hub, or has come, or could not."""

    __tablename__ = "model_fetches"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]  # at the hub: organization/model
    revision: Mapped[str]
    status: Mapped[str]  # fetching, ready, failed
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    bytes_fetched: Mapped[int | None]
    bytes_total: Mapped[int | None]
    file_id: Mapped[str | None]
    created_at: Mapped[int]
    seen_at: Mapped[float]  # when whoever fetches it last said so: a fetch that is silent for long was lost
    __table_args__ = (
        Index("ix_model_fetches_list", "project_id", "created_at", "id"),
        Index("ix_model_fetches_silent", "status", "seen_at"),
    )
