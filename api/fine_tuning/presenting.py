"""Jobs of method fine_tuning in the fine-tuning API's words, wherever they were submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.answers.jobs import progress_object
from api.fine_tuning.requests import TASKS
from api.fine_tuning.schemas import (
    DPOHyperparametersObject,
    DPOObject,
    FineTuningError,
    FineTuningJobObject,
    FineTuningMethodObject,
    ReinforcementHyperparametersObject,
    ReinforcementObject,
    SupervisedHyperparameters,
    SupervisedObject,
)
from api.fine_tuning.translating import GROUP_SIZE, field_in_its_words
from core.errors import WeightworksError
from core.jobs.inputs import rows_of
from core.jobs.models.jobs import Job
from core.jobs.models.projects import Project
from core.jobs.models.results import TrainedModel
from core.jobs.names import fine_tuned_name
from core.jobs.status import TERMINAL, Status
from core.methods.fine_tuning import usual_rate

TYPES = {task: method for method, task in TASKS.items()}


def fine_tuning_job_objects(session: Session, jobs: Sequence[Job]) -> list[FineTuningJobObject]:
    """Jobs of one project and of method fine_tuning."""
    succeeded = [job.id for job in jobs if job.status is Status.SUCCEEDED]
    made = select(TrainedModel).where(TrainedModel.job_id.in_(succeeded))
    models = {model.job_id: model for model in session.scalars(made)} if succeeded else {}
    results = {job.result_file_id for job in jobs if job.result_file_id is not None}
    there = set(rows_of(session, jobs[0].project_id, results)) if results else set()
    names = {job_id: model.alias or model.id for job_id, model in models.items()}
    names |= _names_of_deleted(session, [job for job in jobs if job.id in succeeded and job.id not in models])
    return [_job_object(job, names.get(job.id), there) for job in jobs]


def _names_of_deleted(session: Session, jobs: Sequence[Job]) -> dict[str, str]:
    """What the models were called that these jobs made; jobs keep the name when the model is deleted."""
    if not jobs:
        return {}
    project = session.get_one(Project, jobs[0].project_id).name
    return {job.id: fine_tuned_name(job, project) for job in jobs if job.request is not None}


def _job_object(job: Job, model_name: str | None, there: set[str]) -> FineTuningJobObject:
    progress, method = progress_object(job), _method(job)
    return FineTuningJobObject(
        id=job.id,
        created_at=job.created_at,
        finished_at=job.finished_at,
        status=job.status,
        model=_base(job),
        fine_tuned_model=model_name,
        training_file=job.spec["dataset"],
        validation_file=job.spec.get("validation"),
        result_files=[job.result_file_id] if job.result_file_id in there else [],
        trained_tokens=_trained_tokens(job),
        estimated_finish=progress.estimated_finish if progress else None,
        seed=job.spec["seed"],
        hyperparameters=SupervisedHyperparameters(**_numbers(job, SupervisedHyperparameters)),
        method=method,
        metadata=job.tags or None,
        organization_id=job.project_id,
        error=_error(job.error, method.type) if job.error else None,
    )


def _base(job: Job) -> str:
    """As it was called; in a pipeline, the job that makes it."""
    base = job.spec["base"]
    asked: str | None = (job.request or {}).get("model")
    return asked or (base["job"] if isinstance(base, Mapping) else str(base))


def _trained_tokens(job: Job) -> int | None:
    found = job.metrics.get("trained_tokens")
    return None if found is None or job.status not in TERMINAL else int(found)


def _error(error: Mapping[str, Any], method: str) -> FineTuningError:
    param = None if error.get("param") is None else field_in_its_words(error["param"], method)
    return FineTuningError(code=error.get("code") or WeightworksError.code, message=error["message"], param=param)


def _method(job: Job) -> FineTuningMethodObject:
    """How it learns; any other task than preferences and reinforcement is supervised."""
    kind = TYPES.get(job.spec["task"], "supervised")
    if kind == "dpo":
        dpo = DPOHyperparametersObject(**_numbers(job, DPOHyperparametersObject))
        return FineTuningMethodObject(type="dpo", dpo=DPOObject(hyperparameters=dpo))
    if kind == "reinforcement":
        numbers = ReinforcementHyperparametersObject(**_numbers(job, ReinforcementHyperparametersObject))
        learned = ReinforcementObject(grader=job.spec["grader"], hyperparameters=numbers)
        return FineTuningMethodObject(type="reinforcement", reinforcement=learned)
    supervised = SupervisedHyperparameters(**_numbers(job, SupervisedHyperparameters))
    return FineTuningMethodObject(type="supervised", supervised=SupervisedObject(hyperparameters=supervised))


def _numbers(job: Job, kind: type[SupervisedHyperparameters]) -> dict[str, Any]:
    """The hyperparameters as they were asked for; of other jobs, what their spec says in other words."""
    if job.request is not None:
        method = job.request["method"]
        known = method[method["type"]]["hyperparameters"]
    else:
        spec, rate = job.spec, usual_rate(job.spec)
        known = {
            "n_epochs": spec.get("epochs"),
            "batch_size": spec.get("batch_size"),
            "learning_rate_multiplier": float(f"{spec['learning_rate'] / rate:.6g}") if rate else None,
            "beta": spec.get("beta"),
            "eval_interval": spec.get("evaluate_every"),
            "compute_multiplier": spec["group_size"] / GROUP_SIZE if "group_size" in spec else None,
        }
    return {name: known.get(name) for name in kind.model_fields}
