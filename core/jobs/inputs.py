"""What a job starts from: the data sets and models that its spec names, as keys in storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.expiry import is_there
from core.jobs.models import File, Job, TrainedModel
from core.jobs.store import list_artifacts, needs_of
from core.spec import MethodSpec, files_of, models_of


@dataclass(frozen=True)
class FileInput:
    """An uploaded file: a data set, or an uploaded model (an archive that holds a model folder)."""

    file_id: str
    filename: str
    sha256: str
    is_model: bool


@dataclass(frozen=True)
class ModelInput:
    """A model that a job made: its artifacts, path to storage key."""

    job_id: str
    model_id: str
    files: Mapping[str, str]


def get_file(session: Session, project_id: str, file_id: str, *, param: str | None = "file_id") -> File:
    """The project's file; raises NotFound, also for one that has expired."""
    file = session.get(File, file_id)
    if file is None or file.project_id != project_id or not _is_there(session, file):
        raise NotFound(f"there is no file '{file_id}'", param=param)
    return file


def _is_there(session: Session, file: File) -> bool:
    return file.expires_at is None or bool(session.scalar(select(exists().where(File.id == file.id, is_there()))))


def get_model(session: Session, project_id: str, model_id: str, *, param: str | None = "model_id") -> TrainedModel:
    """The project's trained model; raises NotFound."""
    model = session.get(TrainedModel, model_id)
    if model is None or model.project_id != project_id:
        raise NotFound(f"there is no model '{model_id}'", param=param)
    return model


def lock_model(session: Session, project_id: str, model_id: str, *, param: str) -> TrainedModel:
    """The project's trained model, which nobody deletes until the transaction ends; raises NotFound."""
    model = get_model(session, project_id, model_id, param=param)
    session.get(Job, model.job_id, with_for_update={"read": True})
    session.expunge(model)  # what was read before the lock
    return get_model(session, project_id, model_id, param=param)


def model_of_job(session: Session, job_id: str) -> TrainedModel | None:
    """The model that a job made, if it did and the model was not deleted."""
    return session.scalar(select(TrainedModel).where(TrainedModel.job_id == job_id))


def rows_of(session: Session, project_id: str, ids: Iterable[str]) -> dict[str, File | TrainedModel]:
    """The project's files and models among these ids; what was deleted, or has expired, is missing."""
    wanted = set(ids)
    files = [one for one in wanted if one.startswith("file-")]
    found: list[File | TrainedModel] = []
    if files:
        found += session.scalars(select(File).where(File.id.in_(files), File.project_id == project_id, is_there()))
    if models := wanted.difference(files):
        mine = TrainedModel.project_id == project_id
        found += session.scalars(select(TrainedModel).where(TrainedModel.id.in_(models), mine))
    return {row.id: row for row in found}


def resolve_inputs(
    session: Session, *, project_id: str, job_id: str, spec: MethodSpec
) -> dict[str, FileInput | ModelInput]:
    """Every file and model of the spec, by field; raises NotFound, naming the field, for what has been deleted."""
    return resolve_references(
        session, project_id=project_id, job_id=job_id, files=files_of(spec), models=models_of(spec)
    )


def resolve_references(
    session: Session, *, project_id: str, job_id: str, files: Mapping[str, str], models: Mapping[str, Any]
) -> dict[str, FileInput | ModelInput]:
    """As `resolve_inputs`, for whoever has only what the spec names: the worker, which knows no method."""
    found: dict[str, FileInput | ModelInput] = {}
    for field, file_id in files.items():
        found[field] = _file_input(session, project_id, file_id, field, is_model=False)
    needs = needs_of(session, job_id)
    for field, reference in models.items():
        if isinstance(reference, str) and reference.startswith("file-"):
            found[field] = _file_input(session, project_id, reference, field, is_model=True)
        elif isinstance(reference, str):
            found[field] = _model_input(session, get_model(session, project_id, reference, param=field))
        else:
            model = model_of_job(session, needs[field].id) if field in needs else None
            if model is None:
                what = f"the model of {needs[field].id}" if field in needs else "the job whose weights it takes"
                raise NotFound(f"{what} was deleted", param=field)
            found[field] = _model_input(session, model)
    return found


def _file_input(session: Session, project_id: str, file_id: str, field: str, *, is_model: bool) -> FileInput:
    file = get_file(session, project_id, file_id, param=field)
    return FileInput(file.id, file.filename, file.sha256, is_model)


def _model_input(session: Session, model: TrainedModel) -> ModelInput:
    files = {artifact.path: artifact.key for artifact in list_artifacts(session, model.job_id)}
    return ModelInput(model.job_id, model.id, files)


def lineage_of(inputs: Mapping[str, FileInput | ModelInput]) -> dict[str, Any]:
    """Where a job's data and models came from, for its model card and its model."""
    return {
        field: {"file": one.file_id, "filename": one.filename, "sha256": one.sha256}
        if isinstance(one, FileInput)
        else {"model": one.model_id, "job": one.job_id}
        for field, one in inputs.items()
    }
