"""Models: what training made, and base models that were uploaded."""

from __future__ import annotations

from fastapi import APIRouter

from api.answers.answer import Deleted
from api.answers.lists import ListOf, page_of
from api.answers.models import ModelObject, checkpoint_model_object, model_object
from api.dependencies import Reader, ServerDep, WholePageDep, Writer
from api.routes.files import delete_file
from core.errors import InvalidRequest
from core.jobs import deletion, trained_models
from core.jobs.models.files import File
from core.jobs.models.results import Checkpoint
from core.jobs.names import find_named

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(caller: Reader, server: ServerDep, page: WholePageDep) -> ListOf[ModelObject]:
    """The project's models, trained and uploaded."""
    with server.database.read() as session:
        found = trained_models.list_models(session, caller.project_id, **page.query)
    return page_of([model_object(model, project=caller.project_name) for model in found], page)


@router.get("/{model_id:path}")
def get_one_model(model_id: str, caller: Reader, server: ServerDep) -> ModelObject:
    """One model, by any name that it has: where it comes from, what it reached, how large it is."""
    with server.database.read() as session:
        model = find_named(session, caller.project_id, model_id, param="model_id")
        if isinstance(model, Checkpoint):
            return checkpoint_model_object(session, model)
    return model_object(model, project=caller.project_name)


@router.delete("/{model_id:path}")
def delete_model(model_id: str, caller: Writer, server: ServerDep) -> Deleted:
    """Delete a model and its files; 409 while an unfinished job starts from it."""
    with server.database.read() as session:
        model = find_named(session, caller.project_id, model_id, param="model_id")
    if isinstance(model, Checkpoint):
        there = f"/v1/jobs/{model.job_id}/checkpoints/{model.id}"
        raise InvalidRequest(f"a checkpoint is deleted at {there}, by the project whose job it is of", param="model_id")
    if isinstance(model, File):
        delete_file(model.id, caller, server)
        return Deleted(id=model_id, object="model", deleted=True)
    with server.database.write() as session:
        keys = deletion.delete_trained_model(session, caller.project_id, model.id)
    for key in keys:
        server.storage.delete(key)
    return Deleted(id=model_id, object="model", deleted=True)
