"""Projects and their keys."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.jobs.models.base import Base, by_value
from core.jobs.status import Role


class Project(Base):
    """Whose files, jobs and models they are. A quota that is null is the server's default for all projects."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    claimed_at: Mapped[float | None]  # when one of its jobs was last claimed: who waited longest is next
    max_running_jobs: Mapped[int | None]
    max_unfinished_jobs: Mapped[int | None]
    max_stored_bytes: Mapped[int | None]
    max_gpu_seconds: Mapped[int | None]


class ApiKey(Base):
    """A key: stored as the SHA-256 of its 256 random bits, shown once."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    role: Mapped[Role] = mapped_column(by_value(Role, name="role"))
    sha256: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    created_at: Mapped[int]
