"""The table of settings is true and whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis.asyncio.connection import parse_url
from sqlalchemy import make_url

from core.settings import Settings, settings

TABLE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_table_says_what_the_code_says() -> None:
    server = TABLE.read_text(encoding="utf-8").partition("\nThe client")[0]
    written = [tuple(row) for row in re.findall(r"^\| `(WEIGHTWORKS_\w+)` \| (.*?) \| (.*) \|$", server, re.MULTILINE)]
    assert written == [
        (f"WEIGHTWORKS_{name.upper()}", "" if field.default is None else f"`{field.default}`", field.description)
        for name, field in Settings.model_fields.items()
    ]


def test_every_setting_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {int: "7", float: "7", bool: "false"}
    for name, field in Settings.model_fields.items():
        text = "https://hub" if name == "hub_url" else f"postgresql:/{name}"
        monkeypatch.setenv(f"WEIGHTWORKS_{name.upper()}", values.get(field.annotation, text))
    read = Settings()
    assert (read.lease_seconds, read.max_attempts, read.storage_url) == (7.0, 7, "postgresql:/storage_url")
    assert not read.s3_redirects
    assert str(read.admin_key) == str(read.s3_secret_access_key) == "**********"
    for name in ("admin_key", "s3_secret_access_key"):
        assert f"/{name}" not in str(read)


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "gs://bucket", "http://host/bucket"])
def test_a_storage_that_names_no_place_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("WEIGHTWORKS_STORAGE_URL", url)
    with pytest.raises(ValueError, match=r"s3://BUCKET"):
        Settings()


@pytest.mark.parametrize("url", ["hub.example", "ftp://hub.example", "https://", "file:///models"])
def test_a_hub_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("WEIGHTWORKS_HUB_URL", url)
    with pytest.raises(ValueError, match=r"https://HOST"):
        Settings()


def test_secrets_are_read_from_a_folder_and_the_environment_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weightworks_redis_password").write_text("p/w@1\n", encoding="utf-8")
    (tmp_path / "WEIGHTWORKS_DATABASE_PASSWORD").write_text("from the file", encoding="utf-8")
    monkeypatch.setenv("WEIGHTWORKS_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("WEIGHTWORKS_DATABASE_URL", "postgresql://ww@postgres:5433/jobs?sslmode=require")
    read = settings.__wrapped__()
    assert read.redis_url == "redis://:p%2Fw%401@127.0.0.1:6379/0"
    assert read.database_url == "postgresql://ww:from%20the%20file@postgres:5433/jobs?sslmode=require"
    assert make_url(read.database_url).password == "from the file"
    assert parse_url(read.redis_url)["password"] == "p/w@1"
    monkeypatch.setenv("WEIGHTWORKS_DATABASE_PASSWORD", "from the environment")
    assert make_url(settings.__wrapped__().database_url).password == "from the environment"


def test_a_password_goes_only_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTWORKS_REDIS_PASSWORD", "other")
    assert Settings(redis_url="redis://me:mine@host/1").redis_url == "redis://me:mine@host/1"
    assert Settings(redis_url="redis://me@host/1").redis_url == "redis://me:other@host/1"
    assert parse_url(Settings(redis_url="unix:///run/r.sock?db=1").redis_url)["password"] == "other"
    assert "other" not in Settings(redis_url="redis://me:mine@host/1").model_dump_json()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("WEIGHTWORKS_DATABASE_PASSWORD", "x", "names SQLite"), ("WEIGHTWORKS_SECRETS_DIR", "/nowhere", "no folder")],
)
def test_a_secret_without_effect_is_refused(name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=told):
        settings.__wrapped__()
