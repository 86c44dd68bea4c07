"""What of a hub's repository is the model, and what is told where the hub does not give it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidData, NotFound, StorageFull, TooLarge
from core.hub import choose, fetch
from tests.hub import TOKEN, Hub, commit_of

NAME = "organization/model"
BESIDE = ["config.json", "tokenizer.model", "chat_template.jinja", "1_Pooling/config.json"]


@pytest.mark.parametrize(
    ("weights", "others"),
    [
        (["model.safetensors"], ["consolidated.safetensors", "model.gguf", "onnx/model.safetensors"]),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], ["pytorch_model.bin"]),
        (["diffusion.safetensors"], ["original/model.pth", "run.py"]),
        (["tiny.gguf"], ["pytorch_model.bin", "deep/tiny.gguf"]),
    ],
)
def test_weights_lie_at_the_root_and_are_no_pickles(weights: list[str], others: list[str]) -> None:
    files = dict.fromkeys([*weights, *others, *BESIDE], 10)
    assert choose(files, name=NAME, max_bytes=1000) == sorted([*weights, *BESIDE])
    with pytest.raises(TooLarge, match="may have 20"):
        choose(files, name=NAME, max_bytes=20)


@pytest.mark.parametrize("files", [["pytorch_model.bin", "config.json"], ["a.gguf", "b.gguf"], []])
def test_what_is_no_one_model_is_refused(files: list[str]) -> None:
    with pytest.raises(InvalidData, match="upload"):
        choose(dict.fromkeys(files, 1), name=NAME, max_bytes=1000)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub({NAME: {"tiny.gguf": b"GGUF...", "config.json": b"{}"}}, gated={NAME})
    yield hub
    hub.close()


def order(hub: Hub, folder: Path, **changes: Any) -> dict[str, Any]:
    kept = folder / "kept"
    paths = {"folder": str(kept), "total": str(kept / ".total"), "archive": str(folder / "model.zip")}
    return {"name": NAME, "revision": "main", "url": hub.url, "token": TOKEN, "max_bytes": 100, **paths, **changes}


def test_the_archive_is_told_by_its_bytes_hash_and_commit(hub: Hub, tmp_path: Path) -> None:
    told = fetch(order(hub, tmp_path))
    content = (tmp_path / "model.zip").read_bytes()
    made = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert told == {"commit": commit_of(hub.models[NAME]), "fetched": len(b"GGUF...") + len(b"{}"), **made}
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == hub.models[NAME]
    assert not (tmp_path / "kept").exists()
    assert fetch(order(hub, tmp_path, archive=str(tmp_path / "again.zip"))) == told


def test_a_gated_model_asks_for_a_token_and_its_terms(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"accept them at the hub.*WEIGHTWORKS_HUB_TOKEN") as refused:
        fetch(order(hub, tmp_path, token=None))
    assert refused.value.code == "hub_model_gated"
    assert not (tmp_path / "model.zip").exists()
    assert hub.asked_of("files") == []
    with pytest.raises(NotFound, match="no revision 'v9'"):
        fetch(order(hub, tmp_path, revision="v9"))


def test_a_full_disk_is_told_as_such(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        fetch(order(hub, tmp_path, archive="/dev/full"))
