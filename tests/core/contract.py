"""Runs a method's example the way a worker would, for the tests that hold every method to the same promises."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.catalog import method_named, read_spec
from core.execution import Outcome, train
from core.registry import Example
from core.spec import MethodSpec, files_of, models_of
from core.training.checkpoint import CheckpointFile, read_checkpoint
from core.training.run import Control, Interrupted, Run
from core.training.samples import Sample

# WEIGHTWORKS_TEST_DEVICE=cuda holds every method to its promises on a GPU.
DEVICE = os.environ.get("WEIGHTWORKS_TEST_DEVICE", "auto")
NEARLY = 0.02  # of a tensor's norm


@dataclass
class RequestAfter(Control):
    """Asks the run for something once it has made so many steps."""

    steps: int = 0

    def asked_at(self, step: int) -> Any:
        return self.request if step >= self.steps else None


@dataclass
class Recorder:
    """A reporter that keeps everything."""

    steps: list[int] = field(default_factory=list)
    metrics_seen: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    checkpoints: list[CheckpointFile] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.metrics_seen.append((step, dict(values)))

    def message(self, text: str, level: str) -> None:
        self.messages.append(text)

    def progress(self, step: int, total: int | None) -> None:
        self.steps.append(step)

    def checkpoint(self, file: CheckpointFile) -> None:
        self.checkpoints.append(file)

    def shown(self, sample: Sample) -> None:
        self.samples.append(sample)


def example_spec(example: Example, **changes: Any) -> MethodSpec:
    """The example's spec with placeholder ids for the files and models that it names."""
    files = dict.fromkeys(["dataset", *example.files], "file-example")
    given = {**files, **dict.fromkeys(example.needs, "model-example"), "device": DEVICE, **example.spec, **changes}
    return read_spec(given)


def prepare(example: Example, folder: Path) -> dict[str, Path]:
    """Write the example's data set and train the models that it needs; answers the run's inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = folder / "dataset"
    example.write_dataset(dataset)
    inputs = {"dataset": dataset}
    for name, write in example.files.items():
        inputs[name] = folder / f"{name}-file"
        write(inputs[name])
    for name, need in example.needs.items():
        below = folder / name
        run_example(need, below / "run", inputs=prepare(need, below))
        inputs[name] = below / "run" / "artifacts"
    return inputs


def run_example(
    example: Example,
    folder: Path,
    *,
    inputs: dict[str, Path],
    recorder: Recorder | None = None,
    control: Control | None = None,
    resume: Path | None = None,
    **changes: Any,
) -> Outcome | None:
    """Train the example's spec in `folder`; answers None if it was interrupted."""
    recorder = recorder or Recorder()
    spec = example_spec(example, **changes)
    assert set(files_of(spec)) | set(models_of(spec)) <= set(inputs)
    torch.set_num_threads(1)
    run = Run(
        spec=spec,
        inputs=inputs,
        folder=folder,
        reporter=recorder,
        control=control or Control(),
        resume=read_checkpoint(resume) if resume else None,
    )
    try:
        return train(run, lineage={"job": "job-example"})
    except Interrupted:
        return None


def trained(folder: Path, spec: dict[str, Any], **inputs: Path) -> tuple[dict[str, float], Path, Recorder]:
    """Metrics, artifacts and news of a run."""
    torch.set_num_threads(1)
    recorder = Recorder()
    named = {name: f"file-{name}" for name in inputs}
    run = Run(spec=read_spec({**named, **spec}), inputs=inputs, folder=folder, reporter=recorder)
    train(run, lineage={})
    return json.loads((run.artifacts / "metrics.json").read_text()), run.artifacts, recorder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's artifacts, by file and name."""
    from safetensors.torch import load_file

    found = {}
    for file in sorted((folder / "artifacts").rglob("*.safetensors")):
        for name, tensor in load_file(file).items():
            found[f"{file.name}:{name}"] = tensor
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit on a CPU; a GPU adds up in an order of its own, so that there they are nearly the same."""
    first, second = weights_of(one), weights_of(other)
    assert first, "a method must leave its weights as safetensors"
    assert first.keys() == second.keys()
    for place, tensor in first.items():
        if DEVICE == "cuda":
            apart = (tensor.double() - second[place].double()).norm()
            assert apart <= NEARLY * tensor.double().norm() + 1e-6, f"{place} differs by {apart:.3g}"
        else:
            assert torch.equal(tensor, second[place]), f"{place} differs"


def method_names() -> list[str]:
    from core.catalog import methods

    return list(methods())


__all__ = [
    "Recorder",
    "RequestAfter",
    "assert_same_weights",
    "example_spec",
    "method_named",
    "method_names",
    "prepare",
    "run_example",
    "weights_of",
]
