"""Models: what training made, and base models that were uploaded, as one list."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.jobs.expiry import is_there
from core.jobs.files import BASE_MODEL, refuse_while_needed
from core.jobs.inputs import get_file, get_model
from core.jobs.models import Dependency, File, Job, TrainedModel
from core.jobs.status import TERMINAL
from core.jobs.store import Order, list_artifacts, page


def find_model(
    session: Session, project_id: str, model_id: str, *, param: str | None = "model_id"
) -> TrainedModel | File:
    """The project's model, trained (`model-...`) or uploaded (`file-...`); raises NotFound."""
    if not model_id.startswith("file-"):
        return get_model(session, project_id, model_id, param=param)
    file = get_file(session, project_id, model_id, param=param)
    if file.purpose != BASE_MODEL:
        raise NotFound(f"'{model_id}' is a data set, not a model", param=param)
    return file


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


def delete_trained_model(session: Session, project_id: str, model_id: str) -> list[str]:
    """Delete a model and the rows of its artifacts; answers the storage keys that hold nothing of use any more.

    Raises Conflict, naming the job, while a job that has not ended starts from it.
    """
    model = get_model(session, project_id, model_id)
    refuse_while_needed(session, project_id, model_id)
    dependents = select(Job.id).join(Dependency, Dependency.job_id == Job.id)
    waiting: Any = dependents.where(Dependency.needs_id == model.job_id, Job.status.not_in(TERMINAL)).limit(1)
    if job_id := session.scalar(waiting):
        raise Conflict(f"{job_id} starts from '{model_id}'; cancel it first", code="in_use")
    artifacts = list_artifacts(session, model.job_id)
    for row in (model, *artifacts):
        session.delete(row)
    session.flush()
    return [artifact.key for artifact in artifacts]
