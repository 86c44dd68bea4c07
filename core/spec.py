"""What every job may ask for: the fields that all methods' specs share, and how a spec names files and models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, LiteralString, Self, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Frozen(BaseModel):
    """A value that does not change and refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, data: Any) -> Any:
        """Pydantic takes "12" and true for numbers, and 1 and "yes" for true: the JSON schema does not."""
        if not isinstance(data, Mapping):
            return data
        wrong: list[InitErrorDetails] = []
        for name, field in cls.model_fields.items():
            if name in data and (told := _wrong_type(data[name], _types_in(field.annotation))):
                wrong.append({"type": PydanticCustomError("wrong_type", told), "loc": (name,), "input": data[name]})
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return data


def _wrong_type(value: Any, taken: frozenset[Any]) -> LiteralString | None:
    if isinstance(value, bool | str) and taken & {int, float} and type(value) not in taken:
        return "Input should be a valid number" if float in taken else "Input should be a valid integer"
    if isinstance(value, int | float | str) and bool in taken and type(value) not in taken:
        return "Input should be true or false"
    return None


def _types_in(annotation: Any) -> frozenset[Any]:
    """The types that a field may have at the top of its value."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return frozenset(map(type, inner))
    if get_origin(annotation) is Annotated:
        return _types_in(inner[0])
    if get_origin(annotation) in (Union, UnionType):
        return frozenset().union(*map(_types_in, inner))
    return frozenset({annotation})


class JobReference(Frozen):
    """The weights that another job makes; a job that names one waits for it."""

    job: str = Field(min_length=1, max_length=128, description="Id of a job, or its local name inside a pipeline.")


FINE_TUNED = "ft:"
ModelReference = (
    Annotated[str, StringConstraints(max_length=512, pattern=r"^((model|file|ckpt)-[A-Za-z0-9_-]+|ft:[^\x00]+)$")]
    | JobReference
)
FileReference = Annotated[str, StringConstraints(pattern=r"^file-[A-Za-z0-9_-]+$")]


def file_field(default: Any = ..., *, description: str) -> Any:
    """A spec's field that holds the id of an uploaded file: a data set."""
    return Field(default, description=description, json_schema_extra={"reference": "file"})


def model_field(default: Any = ..., *, description: str) -> Any:
    """A spec's field that may hold a model's id, a checkpoint's, an uploaded model's file id, or `{"job": ...}`.

    Users may write the name `ft:...` of a model or checkpoint, too: the API puts the id in its place.
    """
    return Field(default, description=description, json_schema_extra={"reference": "model"})


class MethodSpec(Frozen):
    """What every job may ask for, whatever its method."""

    method: str = Field(description="The training method.")
    dataset: FileReference = file_field(description="Id of the uploaded file to learn from.")
    name: str | None = Field(None, min_length=1, max_length=64, description="What to call the job and its model.")
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(
        default_factory=dict, description="Up to 16 pairs of text, to find the job by."
    )
    priority: int = Field(0, ge=-100, le=100, description="Jobs of higher priority start first.")
    seed: int = Field(0, ge=0, lt=2**31, description="Where all randomness comes from: same seed, same weights.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train; auto takes a GPU if any.")


class TrainingSpec(MethodSpec):
    """What every method that learns by gradient steps may ask for. Methods narrow the defaults."""

    epochs: int | None = Field(10, ge=1, le=100_000, description="Passes over the data set.")
    steps: int | None = Field(None, ge=1, le=10**9, description="Gradient steps, instead of epochs.")
    batch_size: int = Field(128, ge=1, le=1_000_000, description="Examples a gradient step learns from.")
    accumulate: int = Field(
        1,
        ge=1,
        le=4096,
        description="Parts a batch is cut into, to use less memory; more, if the device runs out of it.",
    )
    learning_rate: float = Field(1e-3, gt=0, le=100, description="Size of a gradient step, at its peak.")
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="How the learning rate falls.")
    warmup: float = Field(0.0, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, le=10, description="Decoupled weight decay (AdamW).")
    gradient_clip: float | None = Field(None, gt=0, description="Largest norm of the gradient; none: not clipped.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the forward pass; auto takes what is faster on the device."
    )
    ema: float | None = Field(
        None, ge=0, lt=1, description="Validate and keep an average of the weights that forgets by this much a step."
    )
    compile: bool = Field(
        False, description="Translate the network into fused kernels first (torch.compile): pays in long runs."
    )
    validation: FileReference | None = file_field(None, description="Id of a file to validate on after each epoch.")
    validation_fraction: float | None = Field(
        None, gt=0, le=0.5, description="Part of the data set held out for validation, instead of a file."
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Stop after this many epochs without a better validation loss; keep the best weights.",
    )
    checkpoint_every: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Steps between checkpoints; none: every 30 seconds, or rarer where one takes long.",
    )

    @property
    def is_validated(self) -> bool:
        """Whether anything is held out to validate on."""
        return self.validation is not None or self.validation_fraction is not None

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_epochs(cls, data: Any) -> Any:
        return fill(data, "epochs", None, when=lambda given: given.get("steps") is not None)

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, not both and not neither")
        if self.validation is not None and self.validation_fraction is not None:
            raise ValueError("give either validation (a file) or validation_fraction, not both")
        if self.early_stopping is not None and self.validation is None and self.validation_fraction is None:
            raise ValueError("early_stopping needs validation or validation_fraction to watch")
        if self.early_stopping is not None and self.epochs is None:
            raise ValueError("early_stopping counts epochs: give epochs instead of steps")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate ({self.accumulate}) cannot exceed batch_size ({self.batch_size})")
        return self


def fill(data: Any, field: str, default: Any, *, when: Any) -> Any:
    """Give `field` its default where `when(data)` holds and it was not given.

    For settings that mean something only beside others: declare them `None`, fill them here in a `mode="before"`
    validator, and refuse them with `refuse` in a `mode="after"` one. A dumped spec then validates to itself.
    """
    if isinstance(data, Mapping) and field not in data and when(data):
        return {**data, field: default}
    return data


def refuse(spec: BaseModel, *fields: str, because: str) -> None:
    """Raise ValueError if one of `fields` is set though it would have no effect."""
    for field in fields:
        if getattr(spec, field) is not None:
            raise ValueError(f"{field} would have no effect: {because}")


def _references(spec: BaseModel, kind: str) -> Iterator[tuple[str, Any]]:
    for name, field in type(spec).model_fields.items():
        if isinstance(field, FieldInfo) and isinstance(field.json_schema_extra, dict):
            value = getattr(spec, name)
            if field.json_schema_extra.get("reference") == kind and isinstance(value, str | JobReference):
                yield name, value


def files_of(spec: BaseModel) -> dict[str, str]:
    """The data sets a spec names: field to file id."""
    return {name: value for name, value in _references(spec, "file") if isinstance(value, str)}


def models_of(spec: BaseModel) -> dict[str, str | JobReference]:
    """The models a spec starts from: field to the id of a model, checkpoint or file, or the job that will make it."""
    return dict(_references(spec, "model"))
