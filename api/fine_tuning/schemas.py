"""What the fine-tuning API answers, exactly as the openai clients want it; what is null where they know nothing is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.answers.answer import Answer
from core.graders import Grader
from core.jobs.status import Status


class FineTuningError(Answer):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class SupervisedHyperparameters(Answer):
    """Numbers, `auto` among them no more; null: the job was asked for in other words (/v1/jobs)."""

    n_epochs: int | None
    batch_size: int | None
    learning_rate_multiplier: float | None


class DPOHyperparametersObject(SupervisedHyperparameters):
    """Those of preferences."""

    beta: float | None


class ReinforcementHyperparametersObject(SupervisedHyperparameters):
    """Those of learning from a grader."""

    compute_multiplier: float | None
    eval_interval: int | None
    eval_samples: int | None
    reasoning_effort: Literal["default"] | None


class SupervisedObject(Answer):
    """Supervised fine-tuning."""

    hyperparameters: SupervisedHyperparameters


class DPOObject(Answer):
    """Direct preference optimization."""

    hyperparameters: DPOHyperparametersObject


class ReinforcementObject(Answer):
    """Reinforcement by a grader."""

    grader: Grader
    hyperparameters: ReinforcementHyperparametersObject


class FineTuningMethodObject(Answer):
    """How a job learns."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedObject | None = None
    dpo: DPOObject | None = None
    reinforcement: ReinforcementObject | None = None


class FineTuningJobObject(Answer):
    """A job in the fine-tuning API's words; all else of it is told under the same id at /v1/jobs."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    status: Status
    model: str = Field(description="The base, as it was called.")
    fine_tuned_model: str | None = Field(description="Name of what it made; null until it has succeeded.")
    training_file: str
    validation_file: str | None
    result_files: list[str] = Field(description="A CSV of the metrics, step by step, once it has succeeded.")
    trained_tokens: int | None = Field(
        description="Tokens that were learned from, over all epochs; null until its end."
    )
    estimated_finish: int | None
    seed: int
    hyperparameters: SupervisedHyperparameters
    method: FineTuningMethodObject
    metadata: dict[str, str] | None
    integrations: None = Field(None, description="None is served.")
    organization_id: str = Field(description="The project's id.")
    error: FineTuningError | None


class FineTuningEventObject(Answer):
    """Something that happened to a job."""

    id: str = Field(description="Of its job, and its place in the job's stream: ftevent-<job>-<fence>-<seq>.")
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] = Field(description="Of metrics: step, total_steps, train_loss, valid_loss and others.")
