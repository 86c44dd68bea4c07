"""Large files in parts: whatever cuts the connection or ends the client, what has arrived is not sent again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weightworks.test_command import COMMAND
from weightworks import Client
from weightworks.errors import Invalid

PART = 2**20


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Three parts and a bit, of which two are the same."""
    path = tmp_path / "numbers.npy"
    rows = np.random.default_rng(time.monotonic_ns()).random((3 * PART // 4096 + 40, 1024), dtype=np.float32)
    np.save(path, rows)
    content = bytearray(path.read_bytes())
    content[PART : 2 * PART] = content[2 * PART : 3 * PART] = content[PART : 2 * PART]
    path.write_bytes(content)
    return path


def pending(client: Client) -> list[dict[str, Any]]:
    return client._transport.get("/v1/uploads", {"status": "pending"})["data"]


def parts_of(client: Client, upload: dict[str, Any]) -> list[dict[str, Any]]:
    return client._transport.get(f"/v1/uploads/{upload['id']}/parts")["data"]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_file_goes_in_parts_and_tells_how_far_it_is(client: Client, large: Path) -> None:
    told: list[int] = []
    file = client.files.upload(large, part_bytes=PART, keep_seconds=3600, on_bytes=told.append)
    assert (file.sha256, file.filename, file.kind) == (digest(large), "numbers.npy", "table")
    assert file.expires_at == file.created_at + 3600
    assert sum(told) == large.stat().st_size
    assert len(told) > 3
    assert pending(client) == []


def test_a_small_file_that_expires(client: Client, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    file = client.files.upload(tmp_path / "t.csv", keep_seconds=7200)
    assert file.expires_at == file.created_at + 7200


def test_connections_that_are_cut_in_mid_part_cost_a_part_each(
    client: Client, distant: Client, relay: Any, large: Path
) -> None:
    told: list[int] = []
    relay.cut_sent_after = PART + PART // 2
    file = distant.files.upload(large, part_bytes=PART, on_bytes=told.append)
    assert file.sha256 == digest(large)
    assert relay.connections >= 3
    assert min(told) < 0
    assert sum(told) == large.stat().st_size
    assert pending(client) == []


def test_a_client_that_ended_is_gone_on_with(client: Client, distant: Client, relay: Any, large: Path) -> None:
    sent = 0

    def end_in_the_third_part(count: int) -> None:
        nonlocal sent
        sent += count
        if sent > 2 * PART + PART // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.files.upload(large, part_bytes=PART, on_bytes=end_in_the_third_part)
    (upload,) = pending(client)
    assert len(parts_of(client, upload)) == 2
    told: list[int] = []
    file = distant.files.upload(large, part_bytes=PART, on_bytes=told.append)
    assert file.sha256 == digest(large)
    assert sum(told) == large.stat().st_size
    assert PART < relay.sent < 2 * PART
    assert client._transport.get(f"/v1/uploads/{upload['id']}")["file"]["id"] == file.id


def test_an_upload_that_someone_else_ended_starts_again(client: Client, large: Path) -> None:
    told: list[int] = []
    cancelled: list[str] = []

    def cancel_once(count: int) -> None:
        told.append(count)
        if not cancelled and sum(told) > PART:
            cancelled.append(pending(client)[0]["id"])
            client._transport.post(f"/v1/uploads/{cancelled[0]}/cancel")

    file = client.files.upload(large, part_bytes=PART, on_bytes=cancel_once)
    assert file.sha256 == digest(large)
    assert sum(told) == large.stat().st_size
    assert cancelled


def test_bad_data_is_told_by_line_and_the_upload_is_given_up(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "ragged.csv"
    path.write_text("a,b\n" + "1,2\n" * 20 + "3\n")
    with pytest.raises(Invalid) as raised:
        client.files.upload(path, part_bytes=50)
    assert [problem["where"] for problem in raised.value.problems] == ["line 22"]
    assert pending(client) == []


def test_the_command_that_was_killed_goes_on(client: Client, weightworks_up: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    np.save(path, np.random.default_rng(1).random((2 * 64 * 256 + 300, 1024), dtype=np.float32))
    command = [COMMAND, "--home", str(weightworks_up.home), "upload", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        deadline = time.monotonic() + 60
        while not (uploads := pending(client)) or not parts_of(client, uploads[0]):
            assert time.monotonic() < deadline
            assert first.poll() is None, "it was over before it could be killed"
            time.sleep(0.005)
        first.kill()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    file = json.loads(done.stdout)
    assert file["sha256"] == digest(path)
    upload = client._transport.get(f"/v1/uploads/{uploads[0]['id']}")
    assert (upload["status"], upload["file"]["id"]) == ("completed", file["id"])
    client.files.delete(file["id"])
