"""What a job starts from: the data sets and models that its spec names, as keys in storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.artifacts import list_artifacts
from core.jobs.dependencies import needs_of
from core.jobs.expiry import is_there
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.models.results import Checkpoint, CheckpointPermission, TrainedModel


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


@dataclass(frozen=True)
class CheckpointInput:
    """What a job was at a step: a checkpoint, and the model that its job started from, without which it is none."""

    checkpoint_id: str
    job_id: str
    step: int
    key: str
    sha256: str
    base: Input


Input: TypeAlias = FileInput | ModelInput | CheckpointInput


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


def get_checkpoint(
    session: Session, project_id: str, checkpoint_id: str, *, param: str | None = "checkpoint_id"
) -> Checkpoint:
    """The checkpoint, of the project or permitted to it; raises NotFound."""
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None or not may_use(session, project_id, checkpoint):
        raise NotFound(f"there is no checkpoint '{checkpoint_id}' (any more)", param=param)
    return checkpoint


def may_use(session: Session, project_id: str, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is the project's own, or permitted to it."""
    if session.get_one(Job, checkpoint.job_id).project_id == project_id:
        return True
    mine = (CheckpointPermission.checkpoint_id == checkpoint.id, CheckpointPermission.project_id == project_id)
    return bool(session.scalar(select(exists().where(*mine))))


def model_of_job(session: Session, job_id: str) -> TrainedModel | None:
    """The model that a job made, if it did and the model was not deleted."""
    return session.scalar(select(TrainedModel).where(TrainedModel.job_id == job_id))


def rows_of(session: Session, project_id: str, ids: Iterable[str]) -> dict[str, File | TrainedModel | Checkpoint]:
    """The project's files and models among these ids, and checkpoints; what was deleted, or has expired, is missing."""
    wanted = set(ids)
    files = [one for one in wanted if one.startswith("file-")]
    checkpoints = [one for one in wanted if one.startswith("ckpt-")]
    found: list[Any] = []
    if files:
        found += session.scalars(select(File).where(File.id.in_(files), File.project_id == project_id, is_there()))
    if checkpoints:
        found += session.scalars(select(Checkpoint).where(Checkpoint.id.in_(checkpoints)))
    if models := wanted.difference(files, checkpoints):
        mine = TrainedModel.project_id == project_id
        found += session.scalars(select(TrainedModel).where(TrainedModel.id.in_(models), mine))
    return {row.id: row for row in found}


def resolve_references(
    session: Session, *, project_id: str, job_id: str, files: Mapping[str, str], models: Mapping[str, Any]
) -> dict[str, Input]:
    """Every file and model that a spec names, by field; raises NotFound, naming the field, for what has been deleted.

    It takes what the spec names, not the spec: the worker knows no method.
    """
    found: dict[str, Input] = {}
    for field, file_id in files.items():
        found[field] = _file_input(session, project_id, file_id, field, is_model=False)
    needs = needs_of(session, job_id)
    for field, reference in models.items():
        if isinstance(reference, str) and reference.startswith("file-"):
            found[field] = _file_input(session, project_id, reference, field, is_model=True)
        elif isinstance(reference, str) and reference.startswith("ckpt-"):
            checkpoint = get_checkpoint(session, project_id, reference, param=field)
            found[field] = checkpoint_input(session, checkpoint, param=field)
        elif isinstance(reference, str):
            found[field] = _model_input(session, get_model(session, project_id, reference, param=field))
        else:
            model = model_of_job(session, needs[field].id) if field in needs else None
            if model is None:
                what = f"the model of {needs[field].id}" if field in needs else "the job whose weights it takes"
                raise NotFound(f"{what} was deleted", param=field)
            found[field] = _model_input(session, model)
    return found


def checkpoint_input(session: Session, checkpoint: Checkpoint, *, param: str | None = None) -> CheckpointInput:
    """A checkpoint with its job's base, whosever that is; raises NotFound if the base was deleted."""
    job = session.get_one(Job, checkpoint.job_id)
    base = job.spec.get("base")
    if base is None:
        raise NotFound(f"'{checkpoint.id}' is of a job of {job.method}, which makes no model of it", param=param)
    try:
        found = resolve_references(session, project_id=job.project_id, job_id=job.id, files={}, models={"base": base})
    except NotFound as error:
        what = f"'{checkpoint.id}' was learned on a base that is not there any more ({error.message})"
        raise NotFound(f"{what}: a model that its job made does without", param=param) from None
    return CheckpointInput(checkpoint.id, job.id, checkpoint.step, checkpoint.key, checkpoint.sha256, found["base"])


def foundations(session: Session, checkpoint_id: str) -> list[str]:
    """The ids of all that a checkpoint stands on, its own first: checkpoints, then a model or a file."""
    found: list[str] = []
    reference: Any = checkpoint_id
    while isinstance(reference, str) and reference.startswith("ckpt-"):
        found.append(reference)
        checkpoint = session.get(Checkpoint, reference)
        if checkpoint is None:
            return found
        job = session.get_one(Job, checkpoint.job_id)
        reference = job.spec.get("base")
        if isinstance(reference, Mapping) and "base" in (needs := needs_of(session, job.id)):
            model = model_of_job(session, needs["base"].id)
            reference = None if model is None else model.id
    return [*found, reference] if isinstance(reference, str) else found


def _file_input(session: Session, project_id: str, file_id: str, field: str, *, is_model: bool) -> FileInput:
    file = get_file(session, project_id, file_id, param=field)
    return FileInput(file.id, file.filename, file.sha256, is_model)


def _model_input(session: Session, model: TrainedModel) -> ModelInput:
    files = {artifact.path: artifact.key for artifact in list_artifacts(session, model.job_id)}
    return ModelInput(model.job_id, model.id, files)


def lineage_of(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """Where a job's data and models came from, for its model card and its model."""
    return {field: _origin(one) for field, one in inputs.items()}


def _origin(one: Input) -> dict[str, Any]:
    if isinstance(one, FileInput):
        return {"file": one.file_id, "filename": one.filename, "sha256": one.sha256}
    if isinstance(one, ModelInput):
        return {"model": one.model_id, "job": one.job_id}
    return {"checkpoint": one.checkpoint_id, "job": one.job_id, "step": one.step}
