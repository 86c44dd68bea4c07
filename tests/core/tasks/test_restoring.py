"""The checkpoint of an epoch, put together with its base, is the model that its job was at that step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from contract import Recorder, RequestAfter, assert_same_weights, run_example
from safetensors.torch import load_file

from core.data import examples
from core.errors import CheckpointDamaged, InvalidData
from core.registry import Example
from core.restoring import unpack_input, write_checkpoint_model
from core.training.run import KEPT_EPOCHS

CHAT = {"method": "fine_tuning", "base": "model-base", "task": "chat", "batch_size": 2, "samples": 0}

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> dict[str, Path]:
    dataset = tmp_path_factory.mktemp("chat") / "dataset"
    examples.write_conversations(dataset)
    return {"dataset": dataset, "base": llama}


def train(folder: Path, inputs: dict[str, Path], **settings: Any) -> Recorder:
    recorder, control = Recorder(), settings.pop("control", None)
    spec = {**CHAT, "epochs": 2, "learning_rate": 1e-2, "epoch_checkpoints": True, **settings}
    example = Example(spec, examples.write_conversations)
    run_example(example, folder, inputs=inputs, recorder=recorder, control=control)
    return recorder


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "full"}, {"strategy": "lora", "lora": {"rank": 4, "dora": True}}, {"strategy": "lora", "ema": 0.5}],
    ids=["full", "dora", "averaged lora"],
)
def test_the_last_epochs_checkpoint_is_the_jobs_model(
    settings: dict[str, Any], inputs: dict[str, Path], tmp_path: Path
) -> None:
    first, last = (one for one in train(tmp_path, inputs, **settings).checkpoints if one.is_epoch)
    write_checkpoint_model(last.path, tmp_path / "last", base=inputs["base"], sha256=last.sha256)
    write_checkpoint_model(first.path, tmp_path / "first", base=inputs["base"])
    made, early = load_file(tmp_path / "artifacts/model.safetensors"), load_file(tmp_path / "first/model.safetensors")
    for name, tensor in load_file(tmp_path / "last/model.safetensors").items():
        assert torch.equal(tensor, made[name]), name
    assert any(not torch.equal(tensor, made[name]) for name, tensor in early.items())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "last")
    assert tokenizer.chat_template == transformers.AutoTokenizer.from_pretrained(tmp_path / "artifacts").chat_template


@pytest.mark.parametrize("task", ["language_model", "preference", "reinforcement"])
def test_every_writing_tasks_checkpoint_is_its_model(task: str, llama: Path, tmp_path: Path) -> None:
    grader = {"type": "string_check", "name": "d", "input": "{{ sample.output_text }}", "operation": "like"}
    settings, write = {
        "language_model": ({"max_length": 64, "samples": 0}, examples.write_text),
        "preference": ({}, examples.write_preferences),
        "reinforcement": ({"grader": {**grader, "reference": "d"}, "max_completion_tokens": 4}, write_prompts),
    }[task]
    spec = {
        "method": "fine_tuning",
        "base": "model-base",
        "task": task,
        "strategy": "lora",
        "batch_size": 4,
        **settings,
    }
    write(tmp_path / "data")
    recorder = Recorder()
    inputs = {"dataset": tmp_path / "data", "base": llama}
    run_example(
        Example({**spec, "epochs": 1, "learning_rate": 1e-2}, write), tmp_path, inputs=inputs, recorder=recorder
    )
    (last,) = (one for one in recorder.checkpoints if one.is_epoch)
    write_checkpoint_model(last.path, tmp_path / "model", base=llama)
    found, made = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "artifacts"))
    assert found.keys() == made.keys()
    assert all(torch.equal(tensor, made[name]) for name, tensor in found.items())


def write_prompts(path: Path) -> None:
    asked = [{"messages": [{"role": "user", "content": f"say {letter}"}]} for letter in "abcdefgh"]
    path.write_text("".join(json.dumps(one) + "\n" for one in asked), encoding="utf-8")


def test_a_checkpoint_of_a_job_that_began_with_a_checkpoint(inputs: dict[str, Path], tmp_path: Path) -> None:
    lora = {"strategy": "lora", "lora": {"rank": 2}, "epochs": 1}
    (first,) = train(tmp_path / "first", inputs, **lora).checkpoints
    place = {"path": str(tmp_path / "base"), "checkpoint": str(first.path), "sha256": first.sha256}
    place["base"] = {"path": str(inputs["base"])}
    base = unpack_input(place, max_unpacked_bytes=2**30)
    (second,) = train(tmp_path / "second", {**inputs, "base": base}, **lora).checkpoints
    shutil.rmtree(base)
    nested = {"path": str(tmp_path / "model"), "checkpoint": str(second.path), "sha256": second.sha256, "base": place}
    found = load_file(unpack_input(nested, max_unpacked_bytes=2**30) / "model.safetensors")
    made = load_file(tmp_path / "second/artifacts/model.safetensors")
    assert all(torch.equal(tensor, made[name]) for name, tensor in found.items())


def test_a_run_goes_on_from_the_checkpoint_of_its_last_step(inputs: dict[str, Path], tmp_path: Path) -> None:
    recorder = train(tmp_path / "whole", inputs, strategy="lora")
    last = recorder.checkpoints[-1]
    assert last.step == recorder.steps[-1]
    spec = {**CHAT, "epochs": 2, "learning_rate": 1e-2, "epoch_checkpoints": True, "strategy": "lora"}
    run_example(Example(spec, examples.write_conversations), tmp_path / "again", inputs=inputs, resume=last.path)
    assert_same_weights(tmp_path / "whole", tmp_path / "again")


def test_the_last_epochs_are_kept_beside_the_newest_two(inputs: dict[str, Path], tmp_path: Path) -> None:
    recorder = train(tmp_path, inputs, epochs=5, checkpoint_every=1)
    steps = [one.step for one in recorder.checkpoints]
    assert len(steps) == len(set(steps))
    of_epochs = [one.path for one in recorder.checkpoints if one.is_epoch][-KEPT_EPOCHS:]
    newest = [one.path for one in recorder.checkpoints][-2:]
    assert set((tmp_path / "checkpoints").iterdir()) == {*of_epochs, *newest}


def test_without_being_asked_they_take_a_twentieth_of_the_time(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.training.run.CHECKPOINT_SHARE", 1e-9)  # so that any is too dear, once it is known
    assert len(train(tmp_path / "1", inputs, epochs=6, epoch_checkpoints=False).checkpoints) == 1
    assert len(train(tmp_path / "2", inputs, epochs=6).checkpoints) == 1 + KEPT_EPOCHS
    asked = RequestAfter("interrupt", steps=2)
    assert len(train(tmp_path / "3", inputs, epochs=None, steps=9, control=asked).checkpoints) == 1


def test_what_is_no_model_is_refused(inputs: dict[str, Path], tmp_path: Path, bert: Path) -> None:
    checkpoint = train(tmp_path, inputs, epochs=1).checkpoints[-1]
    with pytest.raises(CheckpointDamaged, match="does not match"):
        write_checkpoint_model(checkpoint.path, tmp_path / "model", base=inputs["base"], sha256="0" * 64)
    with pytest.raises(CheckpointDamaged, match="does not fit its base"):
        write_checkpoint_model(checkpoint.path, tmp_path / "model", base=bert)
    dataset = tmp_path / "tagged"
    examples.write_tagged_tokens(dataset)
    spec = {"method": "fine_tuning", "base": "model-base", "task": "token_classification", "checkpoint_every": 1}
    recorder = Recorder()
    example = Example({**spec, "epochs": None, "steps": 2}, examples.write_tagged_tokens)
    run_example(example, tmp_path / "tags", inputs={"dataset": dataset, "base": bert}, recorder=recorder)
    with pytest.raises(InvalidData, match="where the task is language_model"):
        write_checkpoint_model(recorder.checkpoints[-1].path, tmp_path / "model", base=bert)
    assert not (tmp_path / "model").exists()
