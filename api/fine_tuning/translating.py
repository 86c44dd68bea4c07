"""From what the fine-tuning API is asked for to the spec of a job, and to the request with a number for each `auto`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.fine_tuning.automatic import FEW_ROWS, DataSize, packed_rows, resolved
from api.fine_tuning.requests import (
    IN_OTHER_WORDS,
    TASKS,
    DPOHyperparameters,
    Hyperparameters,
    JobRequest,
    ReinforcementHyperparameters,
)
from core.catalog import read_spec
from core.errors import InvalidRequest
from core.jobs.models.files import File
from core.jobs.models.results import Checkpoint, TrainedModel
from core.methods.fine_tuning import FineTuningSpec, usual_rate

HYPERPARAMETERS = {
    "supervised": Hyperparameters.model_fields,
    "dpo": DPOHyperparameters.model_fields,
    "reinforcement": ReinforcementHyperparameters.model_fields,
}
GROUP_SIZE = FineTuningSpec.model_fields["group_size"].default  # at a compute_multiplier of 1


@dataclass(frozen=True)
class Translated:
    """A job's spec, and what it was asked for: in the fine-tuning API's words, with a number for each `auto`."""

    spec: FineTuningSpec
    request: Mapping[str, Any]


def translate(asked: JobRequest, base: File | TrainedModel | Checkpoint, *, seed: int, size: DataSize) -> Translated:
    """The spec of a job that starts from `base`; raises InvalidSpec, naming the field as the fine-tuning API does."""
    method = asked.method.type
    numbers = resolved(asked.settings, method, size)
    spec = {
        "method": "fine_tuning",
        "task": TASKS[method],
        "base": base.id,
        "dataset": asked.training_file,
        "validation": asked.validation_file,
        "name": asked.suffix,
        "metadata": asked.metadata or {},
        "seed": seed,
        "strategy": asked.strategy,
        "epoch_checkpoints": True,
        "epochs": numbers["n_epochs"],
        **_learning(asked, numbers, size),
        **asked.native,
    }
    request = {
        "model": asked.model,
        "suffix": asked.suffix,
        "method": {"type": method, method: {"hyperparameters": numbers}},
    }
    try:
        found = read_spec(spec)
    except InvalidRequest as error:
        raise in_its_words(error, method) from None
    assert isinstance(found, FineTuningSpec)  # noqa: S101 - by its method
    return Translated(found, request)


def _learning(asked: JobRequest, numbers: Mapping[str, Any], size: DataSize) -> dict[str, Any]:
    """What the hyperparameters mean for the spec. Its batch_size counts packed rows, where conversations are packed."""
    task = TASKS[asked.method.type]
    rate = usual_rate({"task": task, "strategy": asked.strategy})
    assert rate is not None  # noqa: S101 - both are known here
    found = {"batch_size": numbers["batch_size"], "learning_rate": rate * numbers["learning_rate_multiplier"]}
    if task == "chat":
        rows = packed_rows(numbers["batch_size"], size)
        found["packing"] = asked.native.get("packing", rows is not None and rows >= FEW_ROWS)
        if found["packing"] and rows is not None:
            found["batch_size"] = max(1, rows)
    if "beta" in numbers:
        found["beta"] = numbers["beta"]
    if task == "reinforcement":
        assert asked.method.reinforcement is not None  # noqa: S101 - its validator saw to that
        found["grader"] = asked.method.reinforcement.grader.model_dump(mode="json")
        found["group_size"] = max(2, round(GROUP_SIZE * numbers["compute_multiplier"]))
        found["evaluate_every"] = numbers.get("eval_interval")
    return found


def in_its_words(error: InvalidRequest, method: str) -> InvalidRequest:
    """The error of a spec or a data set, with the field that whoever asked knows."""
    if error.param is not None:
        word = field_in_its_words(error.param, method)
        error.message = error.message.replace(f"{error.param}: ", f"{word}: ", 1)
        error.param = word
    return error


def field_in_its_words(field: str, method: str) -> str:
    """What the fine-tuning API calls a spec's field; the same where it has no word for it."""
    name, dot, rest = field.partition(".")
    word = IN_OTHER_WORDS.get(name, name)
    return (f"method.{method}.hyperparameters.{word}" if word in HYPERPARAMETERS[method] else word) + dot + rest
