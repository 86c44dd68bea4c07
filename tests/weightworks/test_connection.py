from __future__ import annotations

import stat
from pathlib import Path

import pytest

from weightworks import Client
from weightworks.connection import Connection, find_connection, write_connection
from weightworks.errors import NotConnected


def test_arguments_come_before_the_environment_and_that_before_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_connection(tmp_path, Connection("http://home", "ww-home"))
    monkeypatch.setenv("WEIGHTWORKS_HOME", str(tmp_path))
    assert find_connection() == Connection("http://home", "ww-home")
    monkeypatch.setenv("WEIGHTWORKS_BASE_URL", "http://environment/v1/")
    monkeypatch.setenv("WEIGHTWORKS_API_KEY", "ww-environment")
    assert find_connection() == Connection("http://environment", "ww-environment")
    assert find_connection("http://argument", "ww-argument") == Connection("http://argument", "ww-argument")
    assert find_connection(home=tmp_path) == Connection("http://home", "ww-home")


def test_the_key_is_for_this_user_only_and_not_in_any_repr(tmp_path: Path) -> None:
    connection = Connection("http://home", "ww-secret")
    write_connection(tmp_path, connection)
    assert stat.S_IMODE((tmp_path / "connection.json").stat().st_mode) == 0o600
    assert "ww-secret" not in repr(connection)


def test_without_a_server_the_message_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotConnected, match="weightworks up"):
        Client(home=tmp_path)
    (tmp_path / "connection.json").write_text("{")
    with pytest.raises(NotConnected, match="cannot be read"):
        Client(home=tmp_path)


def test_a_server_that_is_gone_is_named() -> None:
    with (
        Client("http://127.0.0.1:9", "ww-key", max_retries=1) as client,
        pytest.raises(NotConnected, match=r"127\.0\.0\.1:9"),
    ):
        client.methods.list()
