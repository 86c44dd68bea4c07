"""Models: what training made, and base models that were uploaded, as one list."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs.expiry import is_there
from core.jobs.files import BASE_MODEL
from core.jobs.models.files import File
from core.jobs.models.results import TrainedModel
from core.jobs.names import find_named
from core.jobs.pages import Order, page


def list_models(
    session: Session, project_id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> list[TrainedModel | File]:
    """The project's models, trained and uploaded, by (created_at, id); raises NotFound for an unknown cursor."""
    cursor = find_named(session, project_id, after, param="after") if after else None
    found: list[TrainedModel | File] = []
    for table, query in (
        (TrainedModel, select(TrainedModel).where(TrainedModel.project_id == project_id)),
        (File, select(File).where(File.project_id == project_id, File.purpose == BASE_MODEL, is_there())),
    ):
        found += session.scalars(page(query, table, cursor=cursor, limit=limit, order=order))
    found.sort(key=lambda model: (model.created_at, model.id), reverse=order == "desc")
    return found[:limit]
