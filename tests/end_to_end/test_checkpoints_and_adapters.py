"""A fine-tuning job's checkpoints are bases of others, and its adapter opens in peft as its merged model answers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Up
from tests.fresh import FreshProcesses
from tests.tiny_llama import conversations, llama_zip, write_tiny_llama
from weightworks import Client
from weightworks.errors import NoSuchPart

PATIENCE = 180.0
COMMAND = Path(sys.executable).with_name("weightworks")
OPEN = """
import sys, peft, torch, transformers
base, adapter, merged = sys.argv[1:]
asked = {"input_ids": torch.tensor([[40, 50, 60, 70]])}
auto = transformers.AutoModelForCausalLM
with torch.inference_mode():
    plain = auto.from_pretrained(base)(**asked).logits
    adapted = peft.PeftModel.from_pretrained(auto.from_pretrained(base), adapter)(**asked).logits
    whole = auto.from_pretrained(merged)(**asked).logits
print((adapted - whole).abs().max().item() < 1e-4, (adapted - plain).abs().max().item() > 1e-3)
"""


@pytest.fixture(scope="module")
def client(weightworks_up: Up) -> Any:
    with Client(home=weightworks_up.home) as client:
        yield client


@pytest.fixture(scope="module")
def spec(client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "chat.jsonl").write_bytes(conversations())
    (folder / "tiny.zip").write_bytes(llama_zip())
    return {
        "method": "fine_tuning",
        "task": "chat",
        "base": client.files.upload(folder / "tiny.zip", purpose="base-model").id,
        "dataset": client.files.upload(folder / "chat.jsonl").id,
        "strategy": "lora",
        "epochs": 4,
        "learning_rate": 1e-2,
        "validation_fraction": 0.2,
        "epoch_checkpoints": True,
    }


def get(client: Client, path: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {client.connection.api_key}"}
    return httpx.get(f"{client.connection.base_url}/v1/{path}", headers=headers, timeout=90)


def test_a_job_starts_from_a_checkpoint_of_another(
    client: Client, spec: dict[str, Any], weightworks_up: Up, tmp_path: Path, fresh: FreshProcesses
) -> None:
    job = client.jobs.wait(client.jobs.create(spec).id, timeout=PATIENCE)
    assert job.status == "succeeded", job.error
    checkpoints = get(client, f"fine_tuning/jobs/{job.id}/checkpoints").raise_for_status().json()["data"]
    steps = [one["step_number"] for one in checkpoints]
    assert steps == [steps[0], steps[0] * 3 // 4, steps[0] // 2]
    metrics = checkpoints[0]["metrics"]
    assert metrics["valid_loss"] == pytest.approx(job.metrics["valid_loss"])
    assert metrics["train_loss"] > 0

    second = client.jobs.wait(client.jobs.create({**spec, "base": checkpoints[1]["id"], "epochs": 1}).id, timeout=90)
    assert second.status == "succeeded", second.error
    base = client.models.get(second.model or "").lineage["base"]
    assert (base["checkpoint"], base["job"], base["step"]) == (checkpoints[1]["id"], job.id, steps[1])
    first_loss = client.jobs.metrics(second.id, names=["valid_loss"])["valid_loss"].values[0]
    assert first_loss == pytest.approx(checkpoints[1]["metrics"]["valid_loss"], rel=1e-4)  # where the checkpoint was
    client.jobs.download(job.id, tmp_path / "merged", part="merged")
    assert not (tmp_path / "merged" / "adapter").exists()
    command = [COMMAND, "--home", str(weightworks_up.home), "download", job.id, "--part", "adapter", "--to", "adapter"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=180)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert "base_model: tiny" in (tmp_path / "adapter" / "README.md").read_text()
    write_tiny_llama(tmp_path / "base")
    folders = [tmp_path / name for name in ("base", "adapter", "merged")]
    assert fresh.run(OPEN, *folders).split() == ["True", "True"]
    for part, shown in (("adapter", tmp_path / "adapter"), ("merged", tmp_path / "merged")):
        assert members(get(client, f"jobs/{job.id}/archive?part={part}")) == bytes_of(shown)


def test_a_job_without_an_adapter_has_none_to_give(client: Client, spec: dict[str, Any], tmp_path: Path) -> None:
    job = client.jobs.wait(client.jobs.create({**spec, "strategy": "full", "epochs": 1}).id, timeout=PATIENCE)
    refused = get(client, f"jobs/{job.id}/archive?part=adapter")
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "part")
    with pytest.raises(NoSuchPart, match="made no adapter"):
        client.jobs.download(job.id, tmp_path, part="adapter")


def members(answer: httpx.Response) -> dict[str, bytes]:
    """What a tar holds, whose length was told beforehand."""
    assert len(answer.content) == int(answer.headers["content-length"])
    assert answer.headers["etag"]
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
