"""The table of settings is true and whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.settings import Settings

TABLE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_table_says_what_the_code_says() -> None:
    server = TABLE.read_text(encoding="utf-8").partition("\nThe client")[0]
    written = [tuple(row) for row in re.findall(r"^\| `(WEIGHTWORKS_\w+)` \| (.*?) \| (.*) \|$", server, re.MULTILINE)]
    assert written == [
        (f"WEIGHTWORKS_{name.upper()}", "" if field.default is None else f"`{field.default}`", field.description)
        for name, field in Settings.model_fields.items()
    ]


def test_every_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in Settings.model_fields.items():
        value = "7" if field.annotation in (int, float) else f"/{name}"
        monkeypatch.setenv(f"WEIGHTWORKS_{name.upper()}", value)
    read = Settings()
    assert (read.lease_seconds, read.max_attempts, read.storage_url) == (7.0, 7, "/storage_url")
    assert str(read.admin_key) == "**********"
    assert "admin_key" not in str(read).replace("admin_key=SecretStr('**********')", "")
