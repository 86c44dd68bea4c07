"""Which model a name means for whoever wants to try it out, and the base that it was tuned from."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.dependencies import Caller, Server
from api.trying_out.process import Model
from core.errors import InvalidRequest
from core.jobs.inputs import FileInput, Input, ModelInput, checkpoint_input, resolve_references
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.models.results import Checkpoint, TrainedModel
from core.jobs.names import find_named

BASES = ("base", "student")  # the fields of specs that name what a model began as


def models_named(server: Server, caller: Caller, names: Sequence[str], *, param: str = "model") -> list[Model]:
    """The models that the caller's project calls so; raises NotFound."""
    with server.database.read() as session:
        return [_model(session, caller.project_id, name, param) for name in names]


def _model(session: Session, project_id: str, name: str, param: str) -> Model:
    row = find_named(session, project_id, name, param=param)
    found = resolve_references(session, project_id=project_id, job_id="", files={}, models={param: row.id})[param]
    return Model(row.sha256 if isinstance(row, File) else row.id, found)


def base_of(server: Server, caller: Caller, name: str, *, param: str) -> str:
    """The id of the model that this one began as; raises InvalidRequest if it began as none of the project's, and
    NotFound.
    """
    with server.database.read() as session:
        found = find_named(session, caller.project_id, name, param=param)
        if isinstance(found, TrainedModel):
            origins = [found.lineage.get(field) for field in BASES]
            bases = [
                origin.get("model") or origin.get("file") or origin.get("checkpoint")
                for origin in origins
                if isinstance(origin, dict)
            ]
        elif isinstance(found, Checkpoint) and session.get_one(Job, found.job_id).project_id == caller.project_id:
            bases = [_id(checkpoint_input(session, found, param=param).base)]
        else:
            bases = []
    base = next((base for base in bases if isinstance(base, str)), None)
    if base is None:
        raise InvalidRequest(
            f"'{name[:200]}' was not tuned from a model of this project: name two models or more to compare",
            param=param,
        )
    return base


def _id(one: Input) -> str:
    if isinstance(one, FileInput):
        return one.file_id
    return one.model_id if isinstance(one, ModelInput) else one.checkpoint_id
