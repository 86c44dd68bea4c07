"""Models: what training made, and base models that were uploaded, as one list."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.expiry import is_there
from core.jobs.files import BASE_MODEL
from core.jobs.models import Checkpoint, File, TrainedModel
from core.jobs.names import find_named
from core.jobs.store import Order, page


def find_model(session: Session, project_id: str, name: str, *, param: str | None = "model_id") -> TrainedModel | File:
    """The project's model, trained or uploaded, by any of its names; raises NotFound, also for a checkpoint."""
    model = find_named(session, project_id, name, param=param)
    if isinstance(model, Checkpoint):
        raise NotFound(f"'{name}' is a checkpoint: GET /v1/jobs/{model.job_id}/checkpoints lists it", param=param)
    return model


def list_models(
    session: Session, project_id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> list[TrainedModel | File]:
    """The project's models, trained and uploaded, by (created_at, id)."""
    cursor = find_model(session, project_id, after, param="after") if after else None
    found: list[TrainedModel | File] = []
    for table, query in (
        (TrainedModel, select(TrainedModel).where(TrainedModel.project_id == project_id)),
        (File, select(File).where(File.project_id == project_id, File.purpose == BASE_MODEL, is_there())),
    ):
        found += session.scalars(page(query, table, cursor=cursor, limit=limit, order=order))
    found.sort(key=lambda model: (model.created_at, model.id), reverse=order == "desc")
    return found[:limit]
