"""An adapter says which base it belongs on, in the words that peft understands where there are any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.training.artifacts import describe_adapter


@pytest.mark.parametrize(
    ("origin", "name", "revision"),
    [
        ({"file": "file-1", "filename": "SmolLM2-135M.tar.gz"}, "SmolLM2-135M", None),
        ({"file": "file-1", "filename": "organization/model.zip"}, "organization/model", None),
        ({"file": "file-1", "filename": "organization/model@v2.zip"}, "organization/model", "v2"),
        ({"model": "model-1", "job": "job-1"}, None, None),
    ],
)
def test_an_adapter_names_its_base(
    tmp_path: Path, origin: dict[str, str], name: str | None, revision: str | None
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "revision": None}))
    describe_adapter(tmp_path, origin=origin)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config == {"r": 8, "base_model_name_or_path": name, "revision": revision}
    card = (tmp_path / "README.md").read_text()
    assert (f"base_model: {name}" in card) is (name is not None)
    assert all(f"- {key}: `{value}`" in card for key, value in origin.items())
