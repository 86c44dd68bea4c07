"""Graders as they are sent: the types that this service runs, and why it refuses the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from core.graders.formula import FUNCTIONS, LONGEST, names_in
from core.graders.templates import Template
from core.spec import Frozen

_REFUSED = {
    "python": "this server runs no code that it is sent: write it as string_check, text_similarity or multi",
    "score_model": "this server asks no other model for scores: take string_check, text_similarity or multi",
    "label_model": "this server asks no other model for labels: take string_check, text_similarity or multi",
}
_METRICS_REFUSED = {
    "cosine": "cosine compares embeddings of a hosted model, which is not here: take fuzzy_match or rouge_l",
    "meteor": "meteor needs the synonyms of WordNet, which are not here: take gleu or rouge_l",
}
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]


class StringCheck(Frozen):
    """1 if a comparison of two texts holds, else 0."""

    type: Literal["string_check"] = Field(description="Always string_check.")
    name: Name = Field(description="What to call it.")
    input: Template = Field(description="The text to check, often {{ sample.output_text }}.")
    reference: Template = Field(description="The text to check against, often {{ item.reference_answer }}.")
    operation: Literal["eq", "ne", "like", "ilike"] = Field(
        description="Whether the input is the reference (eq), is not (ne), or contains it, by case (like) or not "
        "(ilike)."
    )


class TextSimilarity(Frozen):
    """How alike two texts are, from 0 to 1."""

    type: Literal["text_similarity"] = Field(description="Always text_similarity.")
    name: Name = Field(description="What to call it.")
    input: Template = Field(description="The text to grade, often {{ sample.output_text }}.")
    reference: Template = Field(description="The text to grade against, often {{ item.reference_answer }}.")
    evaluation_metric: Literal[
        "fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
    ] = Field(description="What is measured; bleu is of words and marks, rouge an F-measure.")

    @field_validator("evaluation_metric", mode="before")
    @classmethod
    def _told_why(cls, metric: Any) -> Any:
        if isinstance(metric, str) and metric in _METRICS_REFUSED:
            raise ValueError(_METRICS_REFUSED[metric])
        return metric


def _refuse(grader: Any) -> Any:
    kind = grader.get("type") if isinstance(grader, Mapping) else None
    if isinstance(kind, str) and kind in _REFUSED:
        raise PydanticCustomError("grader_refused", "graders of type {kind} are refused: {why}",
                                  {"kind": kind, "why": _REFUSED[kind]})  # fmt: skip
    return grader


Single = Annotated[StringCheck | TextSimilarity, Field(discriminator="type"), BeforeValidator(_refuse)]


def _one_or_many(graders: Any) -> str:
    has_type = isinstance(graders.get("type"), str) if isinstance(graders, Mapping) else not isinstance(graders, dict)
    return "one" if has_type else "many"


class Multi(Frozen):
    """What a formula makes of other graders' rewards."""

    type: Literal["multi"] = Field(description="Always multi.")
    name: Name = Field(description="What to call it.")
    graders: Annotated[
        Annotated[dict[Variable, Single], Field(min_length=1, max_length=20), Tag("many")]
        | Annotated[Single, Tag("one")],
        Discriminator(_one_or_many),
    ] = Field(description="The graders, by the names that the formula has for them; or one, which has its own name.")
    calculate_output: str = Field(
        min_length=1,
        max_length=LONGEST,
        description="A formula of the graders' names: numbers, + - * / ^ ( ), min max abs floor ceil exp sqrt log.",
    )

    @property
    def by_name(self) -> Mapping[str, StringCheck | TextSimilarity]:
        """The graders by the names that the formula has for them."""
        return self.graders if isinstance(self.graders, dict) else {self.graders.name: self.graders}

    @model_validator(mode="after")
    def _formula_fits(self) -> Self:
        for name in self.by_name:
            if name in FUNCTIONS:
                raise ValueError(f"a grader cannot be called '{name}', which is a function of formulas")
        if unknown := names_in(self.calculate_output) - set(self.by_name):
            there = ", ".join(self.by_name)
            raise ValueError(f"calculate_output names '{min(unknown)}', and there are only the graders: {there}")
        return self


Grader = Annotated[StringCheck | TextSimilarity | Multi, Field(discriminator="type"), BeforeValidator(_refuse)]
