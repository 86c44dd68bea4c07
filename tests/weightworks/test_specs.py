from __future__ import annotations

from pathlib import Path

import pytest

from weightworks.errors import UnreadableSpec
from weightworks.specs import read_settings, read_spec


def test_settings_are_json_where_they_can_be_and_dots_go_inside() -> None:
    assert read_settings(["epochs=3", "name=first", "lora.rank=8", "lora.dropout=0.1", "seed=null", "a=x=y"]) == {
        "epochs": 3,
        "name": "first",
        "lora": {"rank": 8, "dropout": 0.1},
        "seed": None,
        "a": "x=y",
    }


@pytest.mark.parametrize("settings", [["epochs"], ["=3"], ["epochs=3", "epochs.inner=1"]])
def test_what_is_no_setting_is_named(settings: list[str]) -> None:
    with pytest.raises(UnreadableSpec, match=settings[-1]):
        read_settings(settings)


@pytest.mark.parametrize("content", ["{", "[1]", None])
def test_a_spec_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "spec.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UnreadableSpec, match=r"spec\.json"):
        read_spec(path)
