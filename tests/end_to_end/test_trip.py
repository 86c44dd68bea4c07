"""One job's trip through everything, as a user makes it: HTTP in, weights out, opened by a library of the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from core.data.examples import write_images, write_table
from tests.conftest import Up, emptied, running_up
from tests.fresh import FreshProcesses
from weightworks import Client

PATIENCE = 180.0
OPEN = """
import json, sys, torch
from core import load_model
model = load_model(sys.argv[1])
with torch.inference_mode():
    print(json.dumps(list(model(torch.rand(3, 1, 16, 16)).shape)))
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`weightworks up` on its own SQLite, and on a PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("weightworks_up")
        return
    url = emptied(request.getfixturevalue("postgresql_url"))
    home = tmp_path_factory.mktemp("postgresql") / "home"
    with running_up(home, environment={"WEIGHTWORKS_DATABASE_URL": url}) as stack:
        yield stack


@pytest.fixture
def client(stack: Up) -> Any:
    with Client(home=stack.home) as client:
        yield client


def test_a_pipeline_from_images_to_a_distilled_student_that_opens_in_a_fresh_process(
    client: Client, tmp_path: Path, fresh: FreshProcesses
) -> None:
    write_images(tmp_path / "images.zip")
    images = client.files.upload(tmp_path / "images.zip").id
    convnet = {"architecture": "convnet", "channels": [8, 16]}
    mlp = {"architecture": "mlp", "hidden_sizes": [8]}
    settings = {"dataset": images, "epochs": 4, "batch_size": 32, "learning_rate": 0.01}
    pipeline = client.pipelines.create(
        {
            "jobs": {
                "distilled": {
                    "method": "distillation",
                    "teacher": {"job": "teacher"},
                    "student": {"job": "student"},
                    **settings,
                },
                "teacher": {"method": "classification", "architecture": convnet, **settings},
                "student": {"method": "classification", "architecture": mlp, **settings},
            }
        }
    )
    ended = {name: client.jobs.wait(job.id, timeout=PATIENCE) for name, job in pipeline.jobs.items()}
    assert {name: job.status for name, job in ended.items()} == dict.fromkeys(ended, "succeeded")
    assert client.pipelines.get(pipeline.id).status == "succeeded"
    distilled = ended["distilled"]
    lineage = client.models.get(distilled.model or "").lineage
    assert (lineage["teacher"]["job"], lineage["student"]["job"]) == (ended["teacher"].id, ended["student"].id)

    client.jobs.download(distilled.id, tmp_path / "weights")
    assert load_file(tmp_path / "weights" / "model.safetensors")
    assert json.loads(fresh.run(OPEN, tmp_path / "weights")) == [3, 2]


def test_a_job_whose_trainer_is_killed_goes_on_and_its_watcher_misses_nothing(
    client: Client, stack: Up, tmp_path: Path
) -> None:
    write_images(tmp_path / "images.zip")
    images = client.files.upload(tmp_path / "images.zip").id
    spec = {"method": "classification", "dataset": images, "epochs": 50, "batch_size": 16, "checkpoint_every": 20}
    job = client.jobs.create(spec)
    events, killed = [], None
    for event in client.jobs.events(job.id):
        events.append(event)
        if event.type == "checkpoint" and killed is None:
            killed = trainer_of(stack)
            killed.kill()
    ended = client.jobs.get(job.id)
    assert (ended.status, ended.attempt) == ("succeeded", 2)
    assert killed is not None
    assert any("checkpoint of step" in event.message for event in events)
    places = [event.place for event in events]
    assert places == sorted(set(places))
    assert events == list(client.jobs.events(job.id))


def trainer_of(stack: Up) -> psutil.Process:
    """The process that trains: the fork server's child."""
    (server,) = [one for one in stack.family() if "worker.zygote" in " ".join(one.cmdline()) and one.children()]
    (trainer,) = server.children()
    return trainer


def test_a_table_goes_in_and_principal_components_come_out(client: Client, tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv")
    file = client.files.upload(tmp_path / "table.csv")
    job = client.jobs.create({"method": "pca", "dataset": file.id, "n_components": 2})
    job = client.jobs.wait(job.id, timeout=PATIENCE)
    assert job.status == "succeeded", job.error
    paths = {path.name for path in client.jobs.download(job.id, tmp_path / "weights")}
    assert {"model.safetensors", "config.json", "README.md", "metrics.json", "manifest.json"} <= paths
