"""The command, as a process, against the whole service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.data.examples import write_images, write_table
from tests.tiny_llama import llama_zip
from weightworks import Client
from weightworks.jobs import Job

COMMAND = Path(sys.executable).with_name("weightworks")


@pytest.fixture
def run(weightworks_up: Any, tmp_path: Path) -> Any:
    def run(*arguments: str, status: int = 0, typed: str | None = None) -> str:
        command = [COMMAND, "--home", str(weightworks_up.home), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, input=typed, capture_output=True, text=True, check=False, timeout=90
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    return run


def test_from_a_file_here_to_weights_here(run: Any, tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv")
    settings = ["--method", "classification", "--dataset", "table.csv", "epochs=3", "architecture.architecture=mlp"]
    job = json.loads(run("submit", *settings, "label=label", "--json"))
    assert job["spec"]["epochs"] == 3
    assert job["spec"]["dataset"].startswith("file-")
    assert "succeeded" in run("watch", job["id"])
    assert "files" in run("download", job["id"], "--to", "weights")
    assert (tmp_path / "weights" / "model.safetensors").exists()
    assert job["id"] in run("jobs")
    assert json.loads(run("job", job["id"], "--json"))["status"] == "succeeded"
    run("logs", job["id"])


def test_a_spec_in_a_file_can_be_changed_beside_it_and_previewed(run: Any, tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv")
    (tmp_path / "spec.json").write_text(json.dumps({"method": "pca", "dataset": "table.csv", "n_components": 2}))
    preview = json.loads(run("submit", "spec.json", "n_components=3", "--preview"))
    assert (preview["spec"]["n_components"], preview["profile"]["examples"]) == (3, 240)


def test_a_pipeline_with_files_here(run: Any, tmp_path: Path) -> None:
    write_images(tmp_path / "images.zip")
    teacher = {"method": "classification", "dataset": "images.zip", "epochs": 2}
    student = {"architecture": "mlp", "hidden_sizes": [8]}
    distilled = {"method": "distillation", "dataset": "images.zip", "teacher": {"job": "teacher"}, "student": student}
    (tmp_path / "p.json").write_text(json.dumps({"jobs": {"teacher": teacher, "small": {**distilled, "epochs": 2}}}))
    shown = run("pipeline", "p.json", "--watch")
    assert shown.count("succeeded") == 2


def test_events_one_a_line_for_machines(run: Any, trained: Job) -> None:
    events = [json.loads(line) for line in run("watch", trained.id, "--json").splitlines()]
    assert events[-1]["data"]["status"] == "succeeded"


def test_methods_are_listed_and_explained(run: Any) -> None:
    assert "classification" in run("methods")
    assert "temperature" in run("methods", "distillation")
    assert json.loads(run("methods", "pca", "--json"))["id"] == "pca"


def test_a_job_is_paused_and_a_worker_drained(run: Any, tmp_path: Path) -> None:
    (worker,) = json.loads(run("workers", "--json"))
    assert worker["id"] in run("drain", worker["id"])
    write_table(tmp_path / "table.csv")
    settings = ["--method", "pca", "--dataset", "table.csv", "n_components=2"]
    job = json.loads(run("submit", *settings, "--json"))["id"]
    assert "paused" in run("pause", job)
    assert "no job" in run("workers")
    assert "queued" in run("resume", job)
    assert not json.loads(run("drain", worker["id"], "--undo", "--json"))["drain_requested"]
    assert "succeeded" in run("watch", job)
    assert "there is no worker" in run("drain", "nobody", status=1)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["submit", "--method", "nope", "--dataset", "file-1"], 1, "there is no method 'nope'"),
        (["submit", "--method", "pca", "--dataset", "missing.csv"], 1, "neither the id of a file nor a file here"),
        (["submit", "--method", "pca", "--dataset", "file-1", "epochs"], 1, "epochs cannot be read"),
        (["upload", "missing.csv"], 1, "missing.csv cannot be read"),
        (["job", "job-1"], 1, "there is no job 'job-1'"),
        (["submit", "--nope"], 2, "--nope"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Any, arguments: list[str], status: int, told: str) -> None:
    error = run(*arguments, status=status)
    assert told in error
    assert "Traceback" not in error


def test_without_a_server_it_says_how_to_get_one(tmp_path: Path) -> None:
    command = [COMMAND, "--home", str(tmp_path), "jobs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "weightworks up" in done.stderr


def test_what_is_no_longer_wanted_is_deleted(run: Any, tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv")
    file = json.loads(run("upload", "table.csv", "--json"))["id"]
    job = json.loads(run("submit", "--method", "pca", "--dataset", file, "n_components=2", "--json"))["id"]
    run("watch", job)
    run("delete", job, "--checkpoints")
    model = json.loads(run("job", job, "--json"))["model"]
    assert json.loads(run("delete", model, "--json")) == [model]
    assert f"{job} is deleted" in run("delete", job, file)
    for one in (job, file, model):
        assert one in run("delete", one, status=1)
    assert "begin with job, file, model" in run("delete", "something", status=2)


def test_a_model_is_asked_and_compared(run: Any, client: Client, tmp_path: Path) -> None:
    (tmp_path / "tiny.zip").write_bytes(llama_zip())
    model = client.files.upload(tmp_path / "tiny.zip", purpose="base-model").id
    answer = run("chat", model, "say 1", "--max-tokens", "8")
    assert len(answer) > 1
    assert run("chat", "tiny", "--max-tokens", "8", typed="say 1\n") == answer
    compared = json.loads(run("compare", model, "tiny", "--prompt", "say 1", "--max-tokens", "8", "--json"))
    assert [one["text"] + "\n" for one in compared] == [answer, answer]
    assert "was not tuned" in run("compare", model, "--prompt", "say 1", status=1)
