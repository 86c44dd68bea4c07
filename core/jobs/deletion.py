"""What users delete: models, jobs, checkpoints. Never what a job that has not ended starts from or could go on from."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, exists, or_, select
from sqlalchemy.orm import Session

from core.errors import Conflict, NotFound
from core.jobs.artifacts import list_artifacts
from core.jobs.checkpointing import list_checkpoints
from core.jobs.checkpoints import refuse_while_used, remove_checkpoints
from core.jobs.files import refuse_while_needed
from core.jobs.inputs import get_model, model_of_job
from core.jobs.models.jobs import Attempt, Dependency, Event, Job, Pipeline, SpentGpu
from core.jobs.models.results import Artifact, Checkpoint, TrainedModel
from core.jobs.status import TERMINAL
from core.jobs.store import get_job


def delete_trained_model(session: Session, project_id: str, model_id: str) -> list[str]:
    """Delete a model and the rows of its artifacts; answers the storage keys that hold nothing of use any more.

    Raises Conflict, naming the job, while a job that has not ended starts from it.
    """
    job_id = get_model(session, project_id, model_id).job_id
    job = get_job(session, project_id, job_id, should_lock=True)
    get_model(session, project_id, model_id)  # someone else may have deleted it before we had the lock
    return [key for key, _ in delete_artifacts(session, job)]


def delete_artifacts(session: Session, job: Job) -> list[tuple[str, int]]:
    """Delete what a locked job made, its model and its artifacts; answers their keys and bytes. Raises Conflict."""
    refuse_while_built_on(session, job)
    artifacts = list_artifacts(session, job.id)
    for table in (TrainedModel, Artifact):
        session.execute(delete(table).where(table.job_id == job.id))
    return [(artifact.key, artifact.bytes) for artifact in artifacts]


def delete_job(session: Session, project_id: str, job_id: str) -> None:
    """Delete an ended job with all its rows, and its pipeline with the last of its jobs.

    Raises Conflict while the job has not ended, or a job that has not ended needs its weights or its checkpoints.
    """
    job = get_job(session, project_id, job_id, should_lock=True)
    if job.status not in TERMINAL:
        raise Conflict(f"the job is {job.status}: cancel it before you delete it", param="job_id")
    refuse_while_built_on(session, job)
    checkpoints = list_checkpoints(session, job_id)
    refuse_while_used(session, project_id, checkpoints)
    remove_checkpoints(session, checkpoints)
    _note_spent_gpu(session, job)
    for table in (TrainedModel, Artifact, Event, Attempt):
        session.execute(delete(table).where(table.job_id == job_id))
    session.execute(delete(Dependency).where(or_(Dependency.job_id == job_id, Dependency.needs_id == job_id)))
    session.delete(job)
    session.flush()
    _delete_empty_pipeline(session, job.pipeline_id)


def delete_checkpoint(session: Session, project_id: str, job_id: str, checkpoint_id: str) -> str:
    """Delete a checkpoint of an ended job; answers its storage key.

    Raises NotFound, or Conflict while the job may have to go on from it, or another starts from it.
    """
    job = get_job(session, project_id, job_id, should_lock=True)
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None or checkpoint.job_id != job_id:
        raise NotFound(f"the job has no checkpoint '{checkpoint_id}' (any more)", param="checkpoint_id")
    if job.status not in TERMINAL:
        raise Conflict(f"the job is {job.status}: it may have to go on from this checkpoint", param="checkpoint_id")
    refuse_while_used(session, project_id, [checkpoint])
    remove_checkpoints(session, [checkpoint])
    return checkpoint.key


def refuse_while_built_on(session: Session, job: Job) -> None:
    """Raise Conflict, naming the other job, while one that has not ended starts from what this job made."""
    dependents = select(Job.id).join(Dependency, Dependency.job_id == Job.id)
    waiting: Any = dependents.where(Dependency.needs_id == job.id, Job.status.not_in(TERMINAL)).limit(1)
    if other := session.scalar(waiting):
        raise Conflict(f"{other} starts from the weights of {job.id}; cancel it first", code="in_use")
    model = model_of_job(session, job.id)
    if model is not None:
        refuse_while_needed(session, job.project_id, model.id)


def _note_spent_gpu(session: Session, job: Job) -> None:
    """Have what the job spent on GPUs count against the project's quota as long as it would have."""
    spent = select(Attempt).where(Attempt.job_id == job.id, Attempt.device == "cuda")
    for attempt in session.scalars(spent).all():
        session.add(
            SpentGpu(
                job_id=job.id,
                fence=attempt.fence,
                project_id=job.project_id,
                started_at=attempt.started_at,
                ended_at=attempt.ended_at or attempt.started_at,
            )
        )


def _delete_empty_pipeline(session: Session, pipeline_id: str | None) -> None:
    if pipeline_id is not None:
        is_empty = ~exists().where(Job.pipeline_id == pipeline_id)
        session.execute(delete(Pipeline).where(Pipeline.id == pipeline_id, is_empty))
