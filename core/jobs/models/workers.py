"""Workers."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from core.jobs.models.base import Base


class WorkerSlot(Base):
    """A worker's slot, as it last told of itself: who could take what waits."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)  # the `owner` of the jobs that it claims
    host: Mapped[str]
    has_gpu: Mapped[bool]
    started_at: Mapped[float]
    seen_at: Mapped[float]
    is_draining: Mapped[bool] = mapped_column(default=False)
    drain_requested: Mapped[bool] = mapped_column(default=False)
