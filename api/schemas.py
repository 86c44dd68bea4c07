"""What the API answers, as pydantic models: the OpenAPI schema is made from these, so it is exact."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from core.graders import Grader
from core.jobs.status import Role, Status, UploadStatus
from core.jobs.waiting import WaitsFor

Item = TypeVar("Item", bound=BaseModel)


class Answer(BaseModel):
    """An answer: what is declared, all of it, and nothing else."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class ListOf(Answer, Generic[Item]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(Answer):
    """Something is gone."""

    id: str
    object: str
    deleted: Literal[True] = True


class ExampleObject(Answer):
    """A job that runs as it is, once its data set is uploaded."""

    spec: dict[str, Any] = Field(description="The spec, without `dataset` and the models that it needs.")
    dataset: str = Field(description="Where its data set is to be had.")


class MethodObject(Answer):
    """A training method."""

    id: str
    object: Literal["method"] = "method"
    summary: str
    description: str
    paper: str
    reads: list[str] = Field(description="Kinds of data set it takes.")
    opens_with: str = Field(description="What its artifacts open with.")
    example: ExampleObject
    example_files: dict[str, str] = Field(description="Where its further data sets are to be had, by field.")
    example_needs: dict[str, ExampleObject] = Field(description="Jobs whose models the example needs, by field.")
    spec_schema: dict[str, Any] = Field(description="JSON schema of its spec.")


class FileObject(Answer):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: str | None = None
    sha256: str
    kind: str | None = Field(
        description="table, images, segmented_images, boxed_images, text, tagged_tokens, text_pairs, audio, "
        "transcribed_speech, conversations, preferences; null: a model."
    )
    profile: dict[str, Any] | None = Field(description="What was found inside.")


class ExpiryObject(Answer):
    """How long a file is kept."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int


class UploadObject(Answer):
    """A file that comes in parts."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int = Field(description="How many all parts are to have together.")
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    mime_type: str
    status: UploadStatus
    expires_after: ExpiryObject | None = Field(description="How long the file is kept; null: until it is deleted.")
    file: FileObject | None = Field(description="What it became; null until it is complete, and once that is deleted.")
    max_part_bytes: int = Field(description="The largest part that is taken.")


class PartObject(Answer):
    """A part of an upload that has arrived whole."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    sha256: str
    md5: str


class ProgressObject(Answer):
    """How far a job is."""

    step: int
    total: int | None
    fraction: float | None
    rate: float | None = Field(description="Steps a second.")
    estimated_finish: int | None


class NeededJob(Answer):
    """A job whose weights another one takes."""

    field: str
    job: str
    status: Status


class WaitingObject(Answer):
    """Why a queued job does not run yet."""

    reason: str
    what: WaitsFor = Field(description="What it waits for: the one thing that keeps it from running.")
    until: int | None = Field(description="When the pause after its last attempt ends.")
    limit: int | None = Field(description="What the quota allows that keeps it.")
    position: int | None = Field(
        description="Its place among all that could start; 1: it is next. Null far back, and if something keeps it."
    )
    ahead: list[str] = Field(description="The first of the project's own jobs that start before it.")
    needs: list[NeededJob]
    worker: str = Field(description="The device that it needs a worker for.")


class AttemptObject(Answer):
    """One attempt at a job."""

    attempt: int
    fence: int
    worker: str
    started_at: int
    ended_at: int | None
    outcome: str | None


class ProblemObject(Answer):
    """One thing that is wrong with a data set, and where."""

    where: str
    what: str


class ErrorObject(Answer):
    """Why a job failed, and what would help."""

    message: str
    type: str
    param: str | None
    code: str | None
    problems: list[ProblemObject] = []


class Origin(Answer):
    """Where a data set or a model comes from."""

    file: str | None = None
    filename: str | None = None
    sha256: str | None = None
    model: str | None = None
    checkpoint: str | None = None
    step: int | None = None
    job: str | None = None


class JobObject(Answer):
    """A job."""

    id: str
    object: Literal["job"] = "job"
    created_at: int
    started_at: int | None
    finished_at: int | None
    method: str
    name: str | None
    status: Status
    spec: dict[str, Any]
    metadata: dict[str, str]
    priority: int
    progress: ProgressObject | None
    metrics: dict[str, float | None]
    waiting: WaitingObject | None
    attempt: int
    max_attempts: int
    attempts: list[AttemptObject]
    cancel_requested: bool
    pause_requested: bool = Field(description="It runs, and its worker is about to leave it off.")
    error: ErrorObject | None
    lineage: dict[str, Origin] = Field(description="Where data and models come from, by the spec's field.")
    model: str | None
    pipeline: str | None
    pipeline_step: str | None


class EstimateObject(Answer):
    """What a job would take; null where it cannot be told beforehand."""

    steps: int | None
    memory_bytes: int | None = Field(description="Of the process on a CPU, of the device on a GPU, at its highest.")
    artifact_bytes: int | None
    seconds: float | None = Field(description="From the claim to the end, where nothing else runs beside it.")
    device: str | None = Field(description="What the first steps were measured on.")
    note: str | None = Field(description="Why something could not be told.")


class PreviewObject(Answer):
    """A job that was not submitted."""

    object: Literal["job.preview"] = "job.preview"
    spec: dict[str, Any]
    profile: dict[str, Any]
    estimate: EstimateObject
    warnings: list[str] = Field(description="What the job would warn of as it begins.")


class EventObject(Answer):
    """Something that happened to a job."""

    id: str = Field(description="<fence>-<seq>: its place in the job's stream.")
    object: Literal["job.event"] = "job.event"
    type: str = Field(description="status, message, metrics, checkpoint, sample or log.")
    level: str
    message: str
    created_at: float
    data: dict[str, Any]


class SeriesObject(Answer):
    """One metric over the steps."""

    name: str
    points: int = Field(description="How many there are before downsampling.")
    steps: list[int]
    values: list[float | None]


class MetricsObject(Answer):
    """A job's metrics as series."""

    object: Literal["job.metrics"] = "job.metrics"
    job: str
    downsampling: Literal["min_max"] | None = Field(
        description="min_max: longer series were cut into stretches, and the extremes of each were kept."
    )
    series: list[SeriesObject]


class LogLine(Answer):
    """A line of the trainer's own output."""

    id: str
    object: Literal["job.log"] = "job.log"
    attempt: int
    created_at: float
    line: str


class CheckpointObject(Answer):
    """A checkpoint."""

    id: str
    object: Literal["job.checkpoint"] = "job.checkpoint"
    created_at: int
    job: str
    step: int
    is_epoch: bool = Field(description="Whether an epoch of fine-tuning ended there: it can be used as a model.")
    bytes: int
    sha256: str
    metrics: dict[str, float | None]


class SampleObject(Answer):
    """A picture or a text that a job made at a step, for people to see what it learns."""

    id: str = Field(description="Its event's.")
    object: Literal["job.sample"] = "job.sample"
    created_at: float
    job: str
    name: str = Field(description="What is shown under one name, step after step, belongs together.")
    step: int
    caption: str
    media_type: str
    bytes: int
    sha256: str


class ArtifactObject(Answer):
    """A file that a job made."""

    path: str
    object: Literal["job.artifact"] = "job.artifact"
    bytes: int
    sha256: str
    media_type: str


class ArtifactsObject(ListOf[ArtifactObject]):
    """All files that a job made; `first_id` and `last_id` are paths."""

    bytes: int


class ModelObject(Answer):
    """A model: one that a job made, or an uploaded base model."""

    id: str = Field(description="Its name at the fine-tuning API (`ft:...`) where it has one.")
    object: Literal["model"] = "model"
    created: int
    created_at: int
    owned_by: str
    name: str | None
    method: str | None
    job: str | None
    bytes: int
    metrics: dict[str, float | None]
    lineage: dict[str, Origin]


class PipelineObject(Answer):
    """Jobs that were posted together."""

    id: str
    object: Literal["pipeline"] = "pipeline"
    created_at: int
    name: str | None
    status: Status
    jobs: dict[str, JobObject]


class WorkerObject(Answer):
    """A slot of a worker: it trains one job at a time."""

    id: str
    object: Literal["worker"] = "worker"
    host: str
    has_gpu: bool
    started_at: int
    seen_at: int
    drain_requested: bool
    is_draining: bool = Field(description="It takes no new job.")
    is_busy: bool
    job: str | None = Field(description="The job it holds; null if that is another project's.")


class QuotasObject(Answer):
    """What a project may use."""

    max_running_jobs: int | None
    max_unfinished_jobs: int | None
    max_stored_bytes: int | None
    max_gpu_seconds: int | None


class UsageObject(Answer):
    """What a project uses."""

    running_jobs: int
    unfinished_jobs: int
    stored_bytes: int
    gpu_seconds: int = Field(description="In the last 30 days.")


class ProjectObject(Answer):
    """A project, its quotas, and how much of them it uses."""

    id: str
    object: Literal["project"] = "project"
    name: str
    created_at: int
    quotas: QuotasObject = Field(description="Its own; null: the server's default; 0: no limit.")
    limits: QuotasObject = Field(description="What holds for it; null: no limit.")
    usage: UsageObject


class ApiKeyObject(Answer):
    """An API key, without the key."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    role: Role
    project: str
    hint: str
    created_at: int


class NewApiKeyObject(ApiKeyObject):
    """An API key just made: the only time that `key` is shown."""

    key: str


class HealthObject(Answer):
    """Whether the server is well."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]


class GraderObject(Answer):
    """A grader that is sound."""

    grader: Grader


class GraderErrors(Answer):
    """What kept an answer from being graded, in the fine-tuning API's words; most of it cannot happen here."""

    formula_parse_error: Literal[False] = False
    invalid_variable_error: bool = Field(description="The item has no such name.")
    model_grader_parse_error: Literal[False] = False
    model_grader_refusal_error: Literal[False] = False
    model_grader_server_error: Literal[False] = False
    model_grader_server_error_details: None = None
    other_error: bool = Field(description="The formula has no value, as in a division by zero.")
    other_error_details: str | None = Field(description="What was wrong, whichever of these it was.")
    python_grader_runtime_error: Literal[False] = False
    python_grader_runtime_error_details: None = None
    python_grader_server_error: Literal[False] = False
    python_grader_server_error_type: None = None
    sample_parse_error: bool = Field(description="The answer is not JSON, or has no such name.")
    truncated_observation_error: Literal[False] = False
    unresponsive_reward_error: Literal[False] = False


class GraderMetadata(Answer):
    """How an answer was graded."""

    name: str
    type: str
    errors: GraderErrors
    execution_time: float = Field(description="Seconds.")
    scores: dict[str, float] = Field(description="What each grader gave.")
    sampled_model_name: None = None
    token_usage: None = None


class GraderRunObject(Answer):
    """What a grader gave to an answer."""

    reward: float
    sub_rewards: dict[str, float] = Field(description="Of a multi grader: what each of its graders gave.")
    metadata: GraderMetadata
    model_grader_token_usage_per_model: dict[str, int] = Field(
        default_factory=dict, max_length=0, description="No grader asks a model here."
    )
