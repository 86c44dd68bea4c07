"""An uploaded model is a folder with a configuration and safetensors weights, and nothing that runs."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from core.data.model_archive import inspect_model_archive, unpack_model_archive
from core.errors import InvalidData

CONFIG = b'{"model_type": "bert", "architectures": ["BertModel"]}'
WEIGHTS = save({"weight": torch.zeros(2)})
WHOLE = {"m/config.json": CONFIG, "m/model.safetensors": WEIGHTS, "m/1_Pooling/config.json": b"{}"}


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_unpacks_the_models_folder_without_what_is_not_data(tmp_path: Path, write) -> None:
    path = write(tmp_path / "sent", {**WHOLE, "m/modeling.py": b"raise SystemExit", "other.txt": b"x"})
    inspect_model_archive(path)
    unpack_model_archive(path, tmp_path / "model")
    found = sorted(file.relative_to(tmp_path / "model").as_posix() for file in (tmp_path / "model").rglob("*.*"))
    assert found == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert (tmp_path / "model" / "config.json").read_bytes() == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m/pytorch_model.bin": b"x"}, "pickled weights"),
        ({"m/model.safetensors": WEIGHTS[:-1]}, "cut short"),
        ({"m/model.safetensors": b"PK anything"}, "not safetensors"),
        ({"m/config.json": b"{"}, "not JSON"),
        ({"m/config.json": b"{}"}, "model_type"),
        ({"m/config.json": b'{"model_type": "x", "auto_map": {"AutoModel": "m.M"}}'}, "auto_map"),
        ({"m/../../etc/passwd": b"x"}, "passwd"),
        ({"/etc/passwd": b"x"}, "passwd"),
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_refuses(tmp_path: Path, write, change: dict[str, bytes], message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        inspect_model_archive(write(tmp_path / "sent", {**WHOLE, **change}))


def test_refuses_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"no config\.json"):
        inspect_model_archive(write_zip(tmp_path / "a", {"readme.md": b"x"}))
    with pytest.raises(InvalidData, match="safetensors"):
        inspect_model_archive(write_zip(tmp_path / "b", {"config.json": CONFIG}))
    (tmp_path / "c").write_bytes(b"text")
    with pytest.raises(InvalidData, match="zip or tar"):
        inspect_model_archive(tmp_path / "c")
