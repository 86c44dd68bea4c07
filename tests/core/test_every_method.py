"""The promises that every method makes, tested for each that the catalog finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from contract import (
    Recorder,
    RequestAfter,
    assert_same_weights,
    example_spec,
    method_named,
    method_names,
    prepare,
    run_example,
    weights_of,
)
from pydantic import ValidationError

from core.catalog import read_spec
from core.errors import InvalidSpec
from core.training.artifacts import MANIFEST
from tests.fresh import FreshProcesses


@pytest.fixture(scope="module", params=method_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def inputs(name: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare(method_named(name).example, tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def undisturbed(name: str, inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    """The example, run once to its end."""
    folder, recorder = tmp_path_factory.mktemp("undisturbed"), Recorder()
    assert run_example(method_named(name).example, folder, inputs=inputs, recorder=recorder) is not None
    return folder, recorder


def test_explains_itself(name: str) -> None:
    method = method_named(name)
    assert len(method.summary) > 20
    assert method.paper
    assert method.reads
    assert method.opens_with
    for field_name, field in method.spec.model_fields.items():
        assert field.description, f"{name}.{field_name} needs a sentence"


def test_survives_json(name: str) -> None:
    spec = example_spec(method_named(name).example)
    assert read_spec(json.loads(spec.model_dump_json())) == spec


def test_trains_with_nothing_but_a_data_set(name: str) -> None:
    method = method_named(name)
    required = {field for field, info in method.spec.model_fields.items() if info.is_required()} - {"dataset", "method"}
    assert required <= {*method.example.needs, *method.example.files, "task", "teacher", "student", "base"}


def test_refuses_a_misspelt_setting(name: str) -> None:
    with pytest.raises(InvalidSpec, match="sed"):
        example_spec(method_named(name).example, sed=3)


def test_specs_are_frozen(name: str) -> None:
    spec = example_spec(method_named(name).example)
    with pytest.raises(ValidationError):
        spec.seed = 1  # type: ignore[misc]


def test_same_seed_gives_the_same_weights(name: str, inputs: dict[str, Path], undisturbed, tmp_path: Path) -> None:
    run_example(method_named(name).example, tmp_path, inputs=inputs)
    assert_same_weights(tmp_path, undisturbed[0])


def test_reports_progress_and_finite_metrics(name: str, undisturbed: tuple[Path, Recorder]) -> None:
    folder, recorder = undisturbed
    metrics = json.loads((folder / "artifacts" / "metrics.json").read_text())
    assert len(metrics) > 1
    assert all(value == value and abs(value) != float("inf") for value in metrics.values())
    assert recorder.steps == sorted(recorder.steps)
    assert recorder.steps[-1] > 0


def test_stops_within_a_step_when_cancelled_and_keeps_what_it_learned(
    name: str, inputs: dict[str, Path], undisturbed, tmp_path: Path
) -> None:
    control = RequestAfter("cancel", steps=1)
    recorder = Recorder()
    outcome = run_example(method_named(name).example, tmp_path, inputs=inputs, recorder=recorder, control=control)
    assert outcome is not None
    if undisturbed[1].steps[-1] > 1:
        assert outcome.is_cancelled
        assert recorder.steps[-1] <= 1
    assert weights_of(tmp_path).keys() == weights_of(undisturbed[0]).keys()


@pytest.mark.parametrize("fraction", [0.3, 0.7])
def test_interrupted_and_resumed_it_ends_bit_for_bit_the_same(
    name: str, fraction: float, inputs: dict[str, Path], undisturbed, tmp_path: Path
) -> None:
    whole = undisturbed[1].steps[-1]
    if whole < 3:
        pytest.skip("a method of one or two steps has nothing to resume")
    recorder = Recorder()
    at = max(1, int(whole * fraction))
    control = RequestAfter("interrupt", steps=at)
    first = run_example(
        method_named(name).example, tmp_path / "first", inputs=inputs, recorder=recorder, control=control
    )
    assert first is None
    assert recorder.checkpoints[-1].step == at
    run_example(method_named(name).example, tmp_path / "second", inputs=inputs, resume=recorder.checkpoints[-1].path)
    assert_same_weights(tmp_path / "second", undisturbed[0])


def test_artifacts_open_in_a_fresh_process(
    name: str, undisturbed: tuple[Path, Recorder], fresh: FreshProcesses
) -> None:
    folder = undisturbed[0] / "artifacts"
    code = "import sys, core; print(sum(t.numel() for t in core.load_model(sys.argv[1]).state_dict().values()))"
    assert int(fresh.run(code, folder)) > 0


def test_artifacts_are_whole(name: str, undisturbed: tuple[Path, Recorder]) -> None:
    folder = undisturbed[0] / "artifacts"
    for expected in ("model.safetensors", "config.json", "metrics.json", "README.md", "training_spec.json", MANIFEST):
        assert (folder / expected).exists() or (
            expected == "model.safetensors" and (folder / "adapter_model.safetensors").exists()
        )
    listed = {entry["path"] for entry in json.loads((folder / MANIFEST).read_text())["files"]}
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {MANIFEST}
    assert listed == present
    assert "$(" not in (folder / "README.md").read_text()
