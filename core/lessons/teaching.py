"""The settings of distillation that its lessons read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from core.networks.architectures import BERT, MLP, ConvNet, ResNet, ViT
from core.networks.shortening import TeachersLayers
from core.spec import ModelReference, fill, model_field, refuse
from core.training.labelled import LabelledSpec

Student = Annotated[MLP | ConvNet | ResNet | ViT | BERT | TeachersLayers, Field(discriminator="architecture")]
Objective = Literal["logits", "hidden_states", "attention", "embeddings", "sequences"]

# The objectives for which a setting means something; for all others it is refused.
OBJECTIVES_OF_SETTING: dict[str, tuple[Objective, ...]] = {
    "temperature": ("logits", "hidden_states"),
    "alpha": ("logits", "hidden_states"),
    "hidden_weight": ("hidden_states",),
    "pooling": ("embeddings",),
    "relation_heads": ("attention",),
    "prompt_tokens": ("sequences",),
}


class TeachingSpec(LabelledSpec):
    """What is handed on, from whom, to whom."""

    teacher: ModelReference = model_field(description="The model whose knowledge is handed on.")
    student: Student | ModelReference = model_field(
        description="The student's architecture, or a model that is to learn more."
    )
    objective: Objective = Field(
        "logits",
        description="What the student matches: the answers (of classes, or of next tokens), the hidden states too, the "
        "relations between tokens in the last attention, the embeddings of texts, or what the teacher writes.",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Softness of the answers that are matched; none: 4 for logits and hidden_states.",
    )
    alpha: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Weight of the teacher's answers against the true classes; none: 0.9, or 1 without.",
    )
    hidden_weight: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Weight of the squared distance between hidden states; none: 1 for hidden_states.",
    )
    pooling: Literal["mean", "first"] | None = Field(
        None, description="Whether a text's embedding is the mean of its tokens' vectors, or the first; none: mean."
    )
    relation_heads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Heads into which both networks' vectors are cut to compare them; none: as many "
        "as the teacher has.",
    )
    prompt_tokens: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Tokens of each document that the teacher goes on from; none: 16 for sequences.",
    )
    max_length: int | None = Field(
        None, ge=4, le=32_768, description="Tokens of a text that are read; none: as many as both take, up to 512."
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_of_an_objective(cls, data: Any) -> Any:
        data = fill(data, "temperature", 4.0, when=lambda given: given.get("objective", "logits") in _MATCHED)
        data = fill(data, "hidden_weight", 1.0, when=lambda given: given.get("objective") == "hidden_states")
        data = fill(data, "pooling", "mean", when=lambda given: given.get("objective") == "embeddings")
        return fill(data, "prompt_tokens", 16, when=lambda given: given.get("objective") == "sequences")

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        for field, objectives in OBJECTIVES_OF_SETTING.items():
            if self.objective not in objectives:
                refuse(self, field, because=f"the objective is {self.objective}")
            elif getattr(self, field) is None and field not in ("alpha", "relation_heads"):
                raise ValueError(f"objective {self.objective} needs {field}")
        return self


_MATCHED = OBJECTIVES_OF_SETTING["temperature"]
