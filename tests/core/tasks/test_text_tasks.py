"""What the text tasks of fine_tuning promise alike: they learn, repeat, resume, and their artifacts open anywhere."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from contract import Recorder, RequestAfter, run_example, weights_of
from safetensors.torch import load_file, save_file

from core import load_model
from core.catalog import read_spec
from core.data import examples
from core.data.profile import inspect
from core.errors import InvalidData, InvalidSpec
from core.execution import Outcome
from core.registry import Example
from tests.fresh import FreshProcesses

COMMON = {"method": "fine_tuning", "base": "model-base"}


@dataclass(frozen=True)
class Case:
    """A task with the base that it starts from, data, and what it reaches."""

    base: str
    write: Callable[[Path], None]
    auto_class: str
    metric: str
    at_least: float
    settings: dict[str, Any]


CASES = {
    "token_classification": Case(
        "bert",
        examples.write_tagged_tokens,
        "AutoModelForTokenClassification",
        "valid_entity_f1",
        0.9,
        {"epochs": 8, "learning_rate": 1e-2, "batch_size": 8},
    ),
    "sequence_to_sequence": Case(
        "t5",
        examples.write_text_pairs,
        "AutoModelForSeq2SeqLM",
        "valid_accuracy",
        0.7,
        {"epochs": 12, "learning_rate": 1e-2, "sample_tokens": 4, "batch_size": 16},
    ),
    "language_model": Case(
        "llama",
        examples.write_text,
        "AutoModelForCausalLM",
        "valid_perplexity",
        -12,
        {"epochs": 3, "learning_rate": 1e-2, "sample_tokens": 4, "max_length": 64},
    ),
    "chat": Case(
        "llama",
        examples.write_conversations,
        "AutoModelForCausalLM",
        "valid_loss",
        -0.5,
        {"epochs": 8, "learning_rate": 1e-2, "sample_tokens": 4, "batch_size": 2},
    ),
    "preference": Case(
        "llama",
        examples.write_preferences,
        "AutoModelForCausalLM",
        "valid_reward_accuracy",
        0.95,
        {"epochs": 2, "learning_rate": 1e-3},
    ),
}


def example_of(task: str, **changes: Any) -> Example:
    spec = {**COMMON, "task": task, "validation_fraction": 0.2, **CASES[task].settings, **changes}
    return Example(spec, CASES[task].write)


@pytest.fixture(scope="module", params=list(CASES))
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def all_inputs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, dict[str, Path]]:
    found = {}
    for task, case in CASES.items():
        dataset = tmp_path_factory.mktemp(task) / "dataset"
        case.write(dataset)
        found[task] = {"dataset": dataset, "base": request.getfixturevalue(case.base)}
    return found


@pytest.fixture
def inputs(task: str, all_inputs: dict[str, dict[str, Path]]) -> dict[str, Path]:
    return all_inputs[task]


@pytest.fixture(scope="module")
def all_finished(
    all_inputs: dict[str, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Recorder, Outcome]]:
    found = {}
    for task, inputs in all_inputs.items():
        folder, recorder = tmp_path_factory.mktemp("finished"), Recorder()
        outcome = run_example(example_of(task), folder, inputs=inputs, recorder=recorder)
        assert outcome is not None
        found[task] = (folder, recorder, outcome)
    return found


@pytest.fixture
def finished(task: str, all_finished: dict[str, tuple[Path, Recorder, Outcome]]) -> tuple[Path, Recorder, Outcome]:
    return all_finished[task]


def test_learns(task: str, finished: tuple[Path, Recorder, Outcome]) -> None:
    _, recorder, outcome = finished
    case = CASES[task]
    reached = outcome.metrics[case.metric]
    assert reached > case.at_least if case.at_least > 0 else reached < -case.at_least
    first = (
        next(values for step, values in recorder.metrics_seen if step == 0 and case.metric in values)
        if (task != "token_classification")
        else {case.metric: 0.0}
    )
    assert (reached - first[case.metric]) * case.at_least > 0


def test_each_step_is_told_in_a_file(finished: tuple[Path, Recorder, Outcome], task: str) -> None:
    folder, recorder, outcome = finished
    path = folder / "artifacts" / "step_metrics.csv"
    if task not in ("language_model", "chat", "preference"):
        assert not path.exists()
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    rows = [line.split(",") for line in lines[1:]]
    assert [row[0] for row in rows] == [str(step) for step in range(1, len(rows) + 1)]
    assert all(float(row[1]) > 0 and 0 <= float(row[2]) <= 1 for row in rows)
    assert float(rows[-1][2]) > float(rows[0][2])
    accuracy = "valid_reward_accuracy" if task == "preference" else "valid_token_accuracy"
    validated = {step: values for step, values in recorder.metrics_seen if step and accuracy in values}
    assert {int(row[0]) for row in rows if row[4]} == set(validated)
    for step, values in validated.items():
        assert [float(cell) for cell in rows[step - 1][3:]] == pytest.approx(
            [values["valid_loss"], values[accuracy]], rel=1e-4
        )
    assert any(accuracy.removeprefix("valid_") in values for _, values in recorder.metrics_seen)
    assert outcome.metrics[accuracy] == pytest.approx(validated[len(rows)][accuracy], abs=1e-6)


def test_people_see_what_it_writes(task: str, finished: tuple[Path, Recorder, Outcome]) -> None:
    _, recorder, _ = finished
    texts = [sample.path.read_text() for sample in recorder.samples]
    assert bool(texts) == (task != "preference")


FRESH = """
import sys, transformers

for argument in sys.argv[1:]:
    name, folder = argument.split("=")
    auto = getattr(transformers, name)
    network, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    asked = tokenizer("the dog eats", return_tensors="pt", return_token_type_ids=False)
    more = {"decoder_input_ids": asked["input_ids"]} if network.config.is_encoder_decoder else {}
    network(**asked, **more)
    print(network.config.id2label[0], tokenizer.chat_template is not None)
"""


def test_what_they_leave_opens_in_a_fresh_process(
    all_finished: dict[str, tuple[Path, Recorder, Outcome]], fresh: FreshProcesses
) -> None:
    folders = {task: found[0] / "artifacts" for task, found in all_finished.items()}
    arguments = [f"{CASES[task].auto_class}={folder}" for task, folder in folders.items()]
    said = dict(zip(folders, fresh.run(FRESH, *arguments).splitlines(), strict=True))
    assert said["token_classification"] == "B-ANIMAL False"
    assert {task for task, line in said.items() if line.endswith("True")} == {"chat", "preference"}
    for folder in folders.values():
        assert '"truncation": null' in (folder / "tokenizer.json").read_text()
        assert isinstance(load_model(folder), torch.nn.Module)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_same_seed_same_weights_and_resumed_it_ends_the_same(
    task: str, strategy: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    example = example_of(task, strategy=strategy, epochs=None, steps=4)
    undisturbed = run_example(example, tmp_path / "whole", inputs=inputs)
    assert undisturbed is not None
    recorder, control = Recorder(), RequestAfter("interrupt", steps=2)
    assert run_example(example, tmp_path / "1", inputs=inputs, recorder=recorder, control=control) is None
    resume = recorder.checkpoints[-1].path
    outcome = run_example(example, tmp_path / "2", inputs=inputs, resume=resume)
    assert outcome is not None
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "2")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert outcome.metrics.get("trained_tokens") == undisturbed.metrics.get("trained_tokens")
    told = [folder / "artifacts" / "step_metrics.csv" for folder in (tmp_path / "whole", tmp_path / "2")]
    assert told[0].exists() == (task in ("language_model", "chat", "preference"))
    if told[0].exists():
        assert told[0].read_bytes() == told[1].read_bytes()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_adapters_open_in_peft_on_the_base(task: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    example = example_of(task, strategy="lora", epochs=None, steps=3, learning_rate=1e-2)
    outcome = run_example(example, tmp_path, inputs=inputs)
    assert outcome is not None
    assert outcome.metrics["trained_parameters"] < outcome.metrics["parameters"] / 2
    artifacts = tmp_path / "artifacts"
    auto = getattr(transformers, CASES[task].auto_class)
    labels = json.loads((artifacts / "config.json").read_text()).get("id2label", {0: "a", 1: "b"})
    base = auto.from_pretrained(inputs["base"], num_labels=len(labels))
    adapted = peft.PeftModel.from_pretrained(base, artifacts / "adapter").eval()
    asked: dict[str, torch.Tensor] = {"input_ids": torch.tensor([[5, 20, 30, 3]])}
    if task == "sequence_to_sequence":
        asked["decoder_input_ids"] = torch.tensor([[0, 7]])
    with torch.no_grad():
        found, plain = adapted(**asked).logits, auto.from_pretrained(artifacts)(**asked).logits
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-3)
    embedded = [name for name in load_file(artifacts / "adapter" / "adapter_model.safetensors") if "embed" in name]
    assert not embedded


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "chat", "strategy": "frozen_encoder"}, "frozen_encoder would learn nothing"),
        ({"task": "chat", "label": "x"}, "label would have no effect"),
        ({"task": "chat", "beta": 0.2}, "beta would have no effect"),
        ({"task": "chat", "label_smoothing": 0.1}, "label_smoothing would have no effect"),
        ({"task": "language_model", "packing": False}, "packing would have no effect"),
        ({"task": "preference", "label_smoothing": 0.5}, "below 0.5"),
        ({"task": "preference", "reinitialize": True}, "relative to base"),
        ({"task": "sequence_to_sequence", "source": "en"}, "go together"),
        ({"task": "token_classification", "beams": 4}, "beams would have no effect"),
    ],
)
def test_refuses_settings_without_effect(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        read_spec({**COMMON, "dataset": "file-1", **settings})


def test_learning_rates_follow_task_and_strategy() -> None:
    def rate(task: str, **settings: Any) -> float:
        spec: Any = read_spec({**COMMON, "dataset": "file-1", "task": task, **settings})
        return float(spec.learning_rate)

    assert [rate("chat"), rate("chat", strategy="lora"), rate("preference", strategy="lora")] == [2e-5, 2e-4, 2e-5]
    assert rate("chat", learning_rate=0.5) == 0.5


@pytest.mark.parametrize(
    ("task", "base", "message"),
    [
        ("chat", "bert", "sees the tokens that it is to predict|lacks weights"),
        ("chat", "t5", "does not write texts"),
        ("sequence_to_sequence", "llama", "name an encoder-decoder"),
        ("language_model", "t5", "does not write texts"),
    ],
)
def test_refuses_bases_that_do_not_fit(
    task: str, base: str, message: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    CASES[task].write(tmp_path / "data")
    inputs = {"dataset": tmp_path / "data", "base": request.getfixturevalue(base)}
    with pytest.raises(InvalidData, match=message) as raised:
        run_example(example_of(task), tmp_path / "run", inputs=inputs)
    assert raised.value.param == "base"


def test_refuses_a_base_whose_weights_are_no_numbers(llama: Path, tmp_path: Path) -> None:
    CASES["chat"].write(tmp_path / "data")
    shutil.copytree(llama, tmp_path / "llama")
    weights = load_file(llama / "model.safetensors")
    broken = {name: torch.full_like(tensor, math.nan) for name, tensor in weights.items()}
    save_file(broken, tmp_path / "llama" / "model.safetensors", metadata={"format": "pt"})
    inputs = {"dataset": tmp_path / "data", "base": tmp_path / "llama"}
    with pytest.raises(InvalidData, match="no numbers"):
        run_example(example_of("chat"), tmp_path / "run", inputs=inputs)


def test_names_the_task_that_data_of_this_kind_would_fit(tmp_path: Path) -> None:
    from core.tasks import check_task

    examples.write_conversations(tmp_path / "data")
    spec: Any = read_spec({**COMMON, "dataset": "file-1", "task": "preference"})
    with pytest.raises(InvalidSpec, match="did you mean chat"):
        check_task(spec, inspect(tmp_path / "data"))
