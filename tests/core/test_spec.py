"""Specs refuse what would not work, fill in what is not said, and name the files and models they need."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from core.spec import JobReference, MethodSpec, ModelReference, TrainingSpec, files_of, model_field, models_of


class ExampleSpec(TrainingSpec):
    """A spec that names models in both ways."""

    teacher: ModelReference = model_field(description="A teacher.")
    base: ModelReference | None = model_field(None, description="A base.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 2, "steps": 3}, "either epochs or steps"),
        ({"epochs": None}, "either epochs or steps"),
        ({"early_stopping": 2}, "early_stopping needs validation"),
        ({"early_stopping": 2, "validation_fraction": 0.1, "steps": 9}, "counts epochs"),
        ({"validation": "file-2", "validation_fraction": 0.1}, "not both"),
        ({"accumulate": 200}, "cannot exceed batch_size"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"learning_rat": 1}, "Extra inputs"),
        ({"dataset": "../etc/passwd"}, "pattern"),
        ({"metadata": {str(index): "" for index in range(17)}}, "at most 16"),
        ({"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_refuses(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSpec.model_validate({"method": "test", "dataset": "file-1", **settings})


def test_a_dumped_spec_validates_to_itself() -> None:
    for settings in ({}, {"steps": 7}, {"epochs": 3, "validation_fraction": 0.2, "early_stopping": 1}):
        spec = TrainingSpec(method="test", dataset="file-1", **settings)
        assert TrainingSpec.model_validate_json(spec.model_dump_json()) == spec


def test_names_the_files_and_models_it_needs() -> None:
    spec = ExampleSpec(method="test", dataset="file-1", validation="file-2", teacher={"job": "big"}, base="model-3")
    assert files_of(spec) == {"dataset": "file-1", "validation": "file-2"}
    assert models_of(spec) == {"teacher": JobReference(job="big"), "base": "model-3"}
    assert models_of(MethodSpec(method="test", dataset="file-1")) == {}
