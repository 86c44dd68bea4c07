"""What the fine-tuning API is asked for, and beside its own words settings of `fine_tuning` that it has none for."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, create_model, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from core.graders import Grader
from core.methods.fine_tuning import FineTuningSpec
from core.spec import Frozen, MetadataKey, MetadataValue
from core.tasks.task import TASKS_OF_SETTING

Auto = Literal["auto"]
Word = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]*$")]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Epochs = Annotated[int, Field(strict=True, ge=1, le=50)]
BatchSize = Annotated[int, Field(strict=True, ge=1, le=256)]
Multiplier = Annotated[float, Field(strict=True, gt=0, le=10_000)]
Beta = Annotated[float, Field(strict=True, gt=0, le=2)]

TASKS = {"supervised": "chat", "dpo": "preference", "reinforcement": "reinforcement"}
# What a spec calls by another name than the fine-tuning API does.
IN_OTHER_WORDS = {
    "dataset": "training_file",
    "validation": "validation_file",
    "base": "model",
    "name": "suffix",
    "task": "method.type",
    "grader": "method.reinforcement.grader",
    "epochs": "n_epochs",
    "steps": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate_multiplier",
    "evaluate_every": "eval_interval",
    "group_size": "compute_multiplier",
}


class Hyperparameters(Frozen):
    """Each a number, or `auto`: then it follows from the data (api/fine_tuning/automatic.py)."""

    n_epochs: Auto | Epochs | None = Field("auto", description="Passes over the training file.")
    batch_size: Auto | BatchSize | None = Field("auto", description="Examples a gradient step learns from.")
    learning_rate_multiplier: Auto | Multiplier | None = Field(
        "auto", description="Factor of the learning rate that is usual for the method and the strategy."
    )


class DPOHyperparameters(Hyperparameters):
    """Those of preferences."""

    beta: Auto | Beta | None = Field("auto", description="How strongly the model is kept near the base.")


class ReinforcementHyperparameters(Hyperparameters):
    """Those of learning from a grader."""

    compute_multiplier: Auto | Multiplier | None = Field(
        "auto", description="Factor of the number of completions that are sampled of each prompt (8)."
    )
    eval_interval: Auto | Count | None = Field(
        "auto", description="Steps between evaluations; auto: after each epoch. Needs validation_file."
    )
    eval_samples: Auto | Literal[1] | None = Field(
        "auto", description="Completions of each validation prompt: the likeliest one, so 1."
    )
    reasoning_effort: Literal["default"] | None = Field(None, description="Models here reason as they were taught to.")


class Supervised(Frozen):
    """Supervised fine-tuning: the loss is of the assistant's turns."""

    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters, description="Numbers, or `auto`.")


class DPO(Frozen):
    """Direct preference optimization."""

    hyperparameters: DPOHyperparameters = Field(default_factory=DPOHyperparameters, description="Numbers, or `auto`.")


class Reinforcement(Frozen):
    """Reinforcement by a grader."""

    grader: Grader = Field(description="What gives a completion its reward.")
    hyperparameters: ReinforcementHyperparameters = Field(
        default_factory=ReinforcementHyperparameters, description="Numbers, or `auto`."
    )


class Method(Frozen):
    """How to learn, with its settings under the name of its type."""

    type: Literal["supervised", "dpo", "reinforcement"] = Field(description="What is learned from.")
    supervised: Supervised | None = Field(None, description="Settings of type supervised.")
    dpo: DPO | None = Field(None, description="Settings of type dpo.")
    reinforcement: Reinforcement | None = Field(None, description="Settings of type reinforcement.")

    @model_validator(mode="after")
    def _settings_are_of_the_type(self) -> Self:
        for name in TASKS:
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"{name} would have no effect: the type is {self.type}")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("reinforcement needs a grader: give reinforcement.grader")
        return self


class JobRequest(Frozen):
    """A fine-tuning job; what is not listed in the clients goes into their `extra_body`."""

    model: Word = Field(max_length=300, description="Any name of a base or fine-tuned model.")
    training_file: Word = Field(max_length=128, description="Id of the uploaded file to learn from.")
    validation_file: Word | None = Field(None, max_length=128, description="Id of a file to validate on.")
    suffix: Word | None = Field(None, max_length=64, description="A part of the model's name.")
    seed: int | None = Field(None, ge=0, lt=2**31, description="Same seed, same weights; none: one is drawn.")
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = Field(
        None, description="Up to 16 pairs of text, to find the job by."
    )
    integrations: list[dict[str, Any]] | None = Field(
        None, max_length=0, description="None is served: progress is at /events, and in the result file."
    )
    hyperparameters: Hyperparameters | None = Field(
        None, description="Older: those of a supervised method, instead of `method`."
    )
    method: Method = Field(Method(type="supervised"), description="How to learn.")
    strategy: Literal["lora", "full"] = Field("lora", description="Whether adapters learn, or all weights.")

    @model_validator(mode="before")
    @classmethod
    def _fields_are_known(cls, data: Any) -> Any:
        wrong: list[InitErrorDetails] = []
        for name in data if isinstance(data, Mapping) else ():
            if name not in cls.model_fields:
                cure = _cure(str(name), list(cls.model_fields))
                what = PydanticCustomError("unknown_field", "there is no such field{cure}", {"cure": cure})
                wrong.append({"type": what, "loc": (name,), "input": None})
            elif name == "integrations" and data[name]:
                what = PydanticCustomError(
                    "not_served", "no integration is served here: leave them out, and read the job's events"
                )
                wrong.append({"type": what, "loc": (name,), "input": None})
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return data

    @model_validator(mode="after")
    def _hyperparameters_are_said_once(self) -> Self:
        if self.hyperparameters is not None and (self.method.type != "supervised" or self.method.supervised):
            raise ValueError(f"hyperparameters are given within method.{self.method.type}: leave out the older field")
        return self

    @model_validator(mode="after")
    def _beta_is_said_once(self) -> Self:
        if self.method.type == "dpo" and "beta" in self.native:
            what = PydanticCustomError("said_elsewhere", "it is said by method.dpo.hyperparameters.beta here")
            wrong: InitErrorDetails = {"type": what, "loc": ("beta",), "input": None}
            raise ValidationError.from_exception_data(type(self).__name__, [wrong])
        return self

    @model_validator(mode="after")
    def _what_is_evaluated_is_given(self) -> Self:
        interval = getattr(self.settings, "eval_interval", None)
        if isinstance(interval, int) and not (self.validation_file or self.native.get("validation_fraction")):
            what = PydanticCustomError("nothing_held_out", "there is nothing to evaluate on: give validation_file, too")
            place = ("method", "reinforcement", "hyperparameters", "eval_interval")
            wrong: InitErrorDetails = {"type": what, "loc": place, "input": None}
            raise ValidationError.from_exception_data(type(self).__name__, [wrong])
        return self

    @property
    def settings(self) -> Hyperparameters:
        """The hyperparameters, wherever they were given."""
        given: Any = getattr(self.method, self.method.type)
        if given is not None:
            found: Hyperparameters = given.hyperparameters
            return found
        if self.method.type == "dpo":
            return DPOHyperparameters()
        return self.hyperparameters or Hyperparameters()

    @property
    def native(self) -> dict[str, Any]:
        """The settings of `fine_tuning` that were given beside the fine-tuning API's own words."""
        return self.model_dump(mode="json", include=self.model_fields_set & NATIVE.keys(), exclude_unset=True)


def _cure(name: str, known: list[str]) -> str:
    if name in IN_OTHER_WORDS:
        return f": it is said by {IN_OTHER_WORDS[name]} here"
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _native_fields() -> dict[str, Any]:
    """The fields of the spec that mean something for language models, and have no name at the fine-tuning API."""
    told, tasks = {*IN_OTHER_WORDS, *JobRequest.model_fields}, set(TASKS.values())
    return {
        name: (field.annotation, field)
        for name, field in FineTuningSpec.model_fields.items()
        if name not in told and tasks & set(TASKS_OF_SETTING.get(name, tasks))
    }


NATIVE = _native_fields()
FineTuningRequest: Any = create_model("FineTuningRequest", __base__=JobRequest, __doc__=JobRequest.__doc__, **NATIVE)
