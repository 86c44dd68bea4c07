"""What a task is to fine_tuning: a network, batches for it, a loss, an evaluation, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from core.data.profile import Kind, Profile
from core.spec import ModelReference, model_field
from core.training.labelled import LabelledSpec
from core.training.lesson import Lesson
from core.training.run import Run

TaskName = Literal[
    "image_classification",
    "text_classification",
    "table_classification",
    "audio_classification",
    "semantic_segmentation",
]

CLASSIFICATION = ("image_classification", "text_classification", "table_classification", "audio_classification")
# The tasks for which a setting means something; for all others it is refused.
TASKS_OF_SETTING: Mapping[str, tuple[str, ...]] = {
    "text": ("text_classification",),
    "label": ("text_classification", "table_classification"),
    "max_length": ("text_classification",),
    "max_seconds": ("audio_classification",),
    "image_size": ("semantic_segmentation",),
    "jitter": ("image_classification", "semantic_segmentation"),
    "horizontal_flip": ("image_classification", "semantic_segmentation"),
    "label_smoothing": CLASSIFICATION,
    "class_weights": CLASSIFICATION,
}


class TuningSpec(LabelledSpec):
    """The settings of fine_tuning that its tasks read."""

    task: TaskName = Field(description="What is to be learned.")
    base: ModelReference = model_field(
        description="The pretrained model: made here, or an uploaded Hugging Face folder with safetensors."
    )
    reinitialize: bool = Field(
        False, description="Forget the base's weights and keep its architecture and tokenizer: the baseline."
    )
    max_length: int | None = Field(
        None, ge=4, le=32_768, description="Tokens of a text that are read; none: as many as the base takes, up to 512."
    )
    image_size: int | None = Field(
        None, ge=16, le=4096, description="Pixels a side that images are resized to; none: those that the base names."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Part of each target that is spread over all classes.")
    class_weights: Literal["balanced"] | None = Field(
        None, description="Whether rare classes count as much as frequent ones (balanced)."
    )

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


@dataclass(frozen=True)
class TaskType:
    """A task before it has data: the kinds that it reads, what a profile alone forbids, and how it is opened."""

    reads: tuple[Kind, ...]
    check: Callable[[Any, Profile], None]
    open: Callable[[Any, Run], Task]
