"""What a task is to fine_tuning: a network, batches for it, a loss, an evaluation, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Self, runtime_checkable

import torch
from pydantic import Field, StringConstraints, model_validator

from core.data.profile import Kind, Profile
from core.errors import InvalidData
from core.graders import Grader
from core.spec import ModelReference, fill, model_field
from core.training.labelled import LabelledSpec
from core.training.lesson import Lesson
from core.training.run import Run

TaskName = Literal[
    "image_classification",
    "text_classification",
    "table_classification",
    "audio_classification",
    "semantic_segmentation",
    "token_classification",
    "sequence_to_sequence",
    "language_model",
    "chat",
    "preference",
    "reinforcement",
    "object_detection",
    "speech_recognition",
]

Column = Annotated[str, StringConstraints(min_length=1, max_length=200)] | None

CLASSIFICATION = ("image_classification", "text_classification", "table_classification", "audio_classification")
WRITING = ("sequence_to_sequence", "language_model", "chat", "preference", "reinforcement")  # with the base's own head
CHECKPOINTED = ("language_model", "chat", "preference", "reinforcement")  # a checkpoint of theirs can be a model
SAMPLED = ("sequence_to_sequence", "language_model", "chat")
RELATIVE = ("preference", "reinforcement")  # learned relative to what the base does
BETA_OF_REINFORCEMENT = 0.04  # DeepSeekMath's
# The tasks for which a setting means something; for all others it is refused.
TASKS_OF_SETTING: Mapping[str, tuple[str, ...]] = {
    "text": ("text_classification", "language_model"),
    "label": ("text_classification", "table_classification"),
    "max_length": ("text_classification", "token_classification", *WRITING),
    "tokens": ("token_classification",),
    "tags": ("token_classification",),
    "source": ("sequence_to_sequence",),
    "target": ("sequence_to_sequence",),
    "pooling": ("text_classification",),
    "beams": ("sequence_to_sequence",),
    "samples": (*SAMPLED, "reinforcement"),
    "sample_tokens": SAMPLED,
    "packing": ("chat",),
    "too_long": ("chat", *RELATIVE),
    "duplicates": ("chat", *RELATIVE),
    "epoch_checkpoints": CHECKPOINTED,
    "beta": RELATIVE,
    "grader": ("reinforcement",),
    "group_size": ("reinforcement",),
    "max_completion_tokens": ("reinforcement",),
    "temperature": ("reinforcement",),
    "updates": ("reinforcement",),
    "evaluate_every": ("reinforcement",),
    "max_seconds": ("audio_classification", "speech_recognition"),
    "image_size": ("semantic_segmentation", "object_detection"),
    "jitter": ("image_classification", "semantic_segmentation"),
    "horizontal_flip": ("image_classification", "semantic_segmentation", "object_detection"),
    "label_smoothing": (*CLASSIFICATION, "token_classification", "sequence_to_sequence", "preference"),
    "class_weights": (*CLASSIFICATION, "token_classification"),
}


class TuningSpec(LabelledSpec):
    """The settings of fine_tuning that its tasks read."""

    task: TaskName = Field(description="What is to be learned.")
    base: ModelReference = model_field(
        description="The pretrained model: made here, or an uploaded Hugging Face folder with safetensors or GGUF."
    )
    strategy: Literal["full", "frozen_encoder", "gradual", "lora"] = Field(
        "full",
        description="Whether all weights learn, only the head, one more layer in each epoch from the head down "
        "(gradual), or low-rank adapters and the head.",
    )
    reinitialize: bool = Field(
        False, description="Forget the base's weights and keep its architecture and tokenizer: the baseline."
    )
    max_length: int | None = Field(
        None,
        ge=4,
        le=32_768,
        description="Tokens of a text that are read; none: as many as the base takes, up to 512 where texts are cut.",
    )
    image_size: int | None = Field(
        None, ge=16, le=4096, description="Pixels a side that images are resized to; none: those that the base names."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Part of each target that is spread over all classes, or over both answers."
    )
    class_weights: Literal["balanced"] | None = Field(
        None, description="Whether rare classes count as much as frequent ones (balanced)."
    )

    pooling: Literal["mean"] | None = Field(
        None,
        description="Judge a text by the mean of its tokens, as sentence encoders want it (mean); none: as the base "
        "does, by its first token.",
    )
    tokens: Column = Field(None, description="Column of the tokens; none: found by name.")
    tags: Column = Field(None, description="Column of the tokens' tags; none: found by name; of CoNLL-U: upos.")
    source: Column = Field(None, description="Column of the texts to read, or their language; none: found by name.")
    target: Column = Field(None, description="Column of the texts to write, or their language; none: found by name.")
    beams: int = Field(1, ge=1, le=64, description="Beginnings that are kept in search of the likeliest text to write.")
    samples: int = Field(3, ge=0, le=20, description="Examples that the model answers for people to read.")
    sample_tokens: int = Field(64, ge=1, le=4096, description="Tokens of such an answer at most.")
    packing: bool = Field(
        True, description="Lay short conversations side by side in a row; the model sees each by itself all the same."
    )
    too_long: Literal["refuse", "cut"] = Field(
        "refuse",
        description="What becomes of a conversation, or a pair, of more than max_length tokens: the job is refused, or "
        "the conversation is cut, the pair left out (cut); so with a prompt that leaves no room for a completion.",
    )
    duplicates: Literal["refuse", "keep"] = Field(
        "refuse",
        description="Whether a job is refused when more than one conversation, pair or prompt in twenty is an exact "
        "copy of another (refuse), or learns them as they are (keep). Fewer copies are told as a warning.",
    )
    beta: float = Field(
        0.1,
        ge=0,
        le=100,
        description="How strongly the model is kept near the base; left out: 0.1 for preferences (DPO), 0.04 for "
        "reinforcement (GRPO), where 0 does without.",
    )
    grader: Grader | None = Field(None, description="What gives a completion its reward.")
    group_size: int = Field(
        8, ge=2, le=128, description="Completions of a prompt that are sampled and compared; batch_size counts prompts."
    )
    max_completion_tokens: int = Field(256, ge=1, le=8192, description="Tokens of a sampled completion at most.")
    temperature: float = Field(
        1.0, gt=0, le=5, description="Softness of the distribution that completions are sampled from, and that learns."
    )
    updates: int = Field(
        1,
        ge=1,
        le=16,
        description="Gradient steps from each batch of completions; from the second on the policy's ratio is clipped.",
    )
    evaluate_every: int | None = Field(
        None, ge=1, le=10**9, description="Steps between evaluations; none: after each epoch."
    )

    epoch_checkpoints: bool = Field(
        False,
        description="Write the checkpoints of the last three epochs, to be used as models, however long that takes; "
        "false: where it takes at most a twentieth of the time.",
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_of_reinforcement(cls, data: Any) -> Any:
        return fill(data, "beta", BETA_OF_REINFORCEMENT, when=lambda given: given.get("task") == "reinforcement")

    @model_validator(mode="after")
    def _columns_go_together(self) -> Self:
        if (self.source is None) != (self.target is None):
            raise ValueError("source and target go together: name both columns, or neither")
        if self.task == "preference" and self.label_smoothing >= 0.5:
            raise ValueError("label_smoothing of preferences is below 0.5: from there on the worse answer is preferred")
        if self.task == "preference" and self.beta == 0:
            raise ValueError("beta of preferences is above 0: it scales what is learned")
        if self.task in RELATIVE and self.reinitialize:
            raise ValueError(f"reinitialize would have no effect worth having: {self.task} is learned relative to base")
        return self

    @model_validator(mode="after")
    def _reinforcement_is_possible(self) -> Self:
        if self.task != "reinforcement":
            return self
        if self.grader is None:
            raise ValueError("reinforcement needs a grader, which gives completions their rewards")
        if self.compile:
            raise ValueError("compile would translate the network anew for every length that is sampled: leave it out")
        if self.evaluate_every is not None and not self.is_validated:
            raise ValueError("evaluate_every needs validation or validation_fraction to evaluate on")
        if self.evaluate_every is not None and self.early_stopping is not None:
            raise ValueError("early_stopping counts epochs: leave out evaluate_every")
        return self

    @model_validator(mode="after")
    def _settings_fit_the_task(self) -> Self:
        for field, tasks in TASKS_OF_SETTING.items():
            if self.task not in tasks and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} would have no effect: the task is {self.task}")
        return self


class Task(Lesson, Protocol):
    """A pretrained network that learns one task from one data set.

    `network`: the base with the task's head; fine_tuning freezes parts of it, or puts the same with adapters in its
    place.
    """

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the modules that turn features into answers: they always learn, wholly."""

    @property
    def new_parameters(self) -> frozenset[str]:
        """Names of the parameters for which the base had no weights."""

    def freeze(self, *, is_head_alone: bool) -> None:
        """The encoder will not change; where only the head learns, its answers may be remembered."""


@runtime_checkable
class Counted(Protocol):
    """A task of tokens: each of its steps is told, and how many tokens were learned from."""

    accuracy: str  # the metric that says how often it is right

    def tokens_in(self, batch: Any) -> int:
        """The tokens of a batch, padding left out."""

    def take_accuracy(self) -> torch.Tensor:
        """How often `loss_of` found it right since this was last asked, 0-d, on the device."""


def check_split(spec: TuningSpec, profile: Profile) -> None:
    """Refuse a single example that is to be split."""
    if spec.validation_fraction is not None and profile.examples < 2:
        raise InvalidData("one example cannot be split for validation", param="dataset")


@dataclass(frozen=True)
class TaskType:
    """A task before it has data: the kinds that it reads, how it is opened, and what a profile alone forbids."""

    reads: tuple[Kind, ...]
    open: Callable[[Any, Run], Task]
    check: Callable[[Any, Profile], None] = check_split
