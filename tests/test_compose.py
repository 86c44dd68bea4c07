"""What can be told of the containers without an engine; `make compose-test` runs them."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import Settings
from tests.compose.__main__ import SERVICES
from tests.compose.engine import SETTINGS

ROOT = Path(__file__).parents[1]
SERVERS = ("api", "worker", "gpu", "migrate")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def test_every_setting_that_it_names_exists(compose: dict[str, Any]) -> None:
    known = {f"WEIGHTWORKS_{name.upper()}" for name in Settings.model_fields}
    files = [ROOT / "docker-compose.yml", *(ROOT / "deploy").glob("docker-compose.*.yml")]
    named = {name for file in files for name in re.findall(r"WEIGHTWORKS_\w+", file.read_text(encoding="utf-8"))}
    targets = {mount["target"].upper() for service in SERVERS for mount in compose["services"][service]["secrets"]}
    assert named | targets | {f"WEIGHTWORKS_{name}" for name in SETTINGS} <= known
    assert set(re.findall(r"WEIGHTWORKS_\w+", (ROOT / "Dockerfile").read_text(encoding="utf-8"))) <= known


def test_what_services_name_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(SERVICES) <= set(services)
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert set(service["networks"]) <= set(compose["networks"]), name
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert (ROOT / source).is_file() if source.startswith(".") else source in {*compose["volumes"], "/tmp"}
        secrets = {mount if isinstance(mount, str) else mount["source"] for mount in service.get("secrets", [])}
        assert secrets <= set(compose["secrets"]), name


def test_every_service_is_restricted_and_has_limits(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert {"mem_limit", "pids_limit", "logging", "healthcheck"} <= set(service), name


def test_only_the_proxy_can_be_reached_from_outside(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    assert [name for name, service in services.items() if "outside" in service["networks"]] == ["proxy", "api"]
    assert compose["networks"]["inside"]["internal"]


def test_it_gives_a_worker_time_to_drain(compose: dict[str, Any]) -> None:
    grace = compose["services"]["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > 3 * Settings.model_fields["stop_seconds"].default


def test_the_image_gets_what_the_dockerfile_copies_and_nothing_else() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {
        path for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE) for path in line.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert all((ROOT / path).exists() for path in copied)
    assert "*" in lines


def test_secrets_are_written_once_and_each_is_another(tmp_path: Path, compose: dict[str, Any]) -> None:
    folder = tmp_path / "secrets"
    command = ["sh", str(ROOT / "deploy" / "secrets.sh"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    written = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert set(written) == set(compose["secrets"])
    assert len(set(written.values())) == len(written)
    assert all(re.fullmatch(r"(ww-)?[\w-]{43}\n", secret) for secret in written.values())
    assert written["admin_key"].startswith("ww-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == written


def test_each_worker_of_a_machine_takes_a_gpu_of_its_own_and_gives_it_back(tmp_path: Path) -> None:
    """With two devices: the third worker is refused, until one of the others has ended."""
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n", encoding="utf-8")
    listing.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GPU_LOCKS": str(tmp_path)}
    script = str(ROOT / "deploy" / "one_gpu.sh")
    say = 'echo "$CUDA_VISIBLE_DEVICES"; read -r line'

    def start() -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(["sh", script, "sh", "-c", say], env=environment, text=True, **pipes)

    one, two = start(), start()
    assert one.stdout is not None
    assert two.stdout is not None
    assert {one.stdout.readline(), two.stdout.readline()} == {"GPU-a\n", "GPU-b\n"}
    third = start()
    assert "has a worker already" in third.communicate()[1]
    assert third.returncode == 1
    two.kill()
    two.communicate()
    third = start()
    assert third.communicate("\n")[0] in ("GPU-a\n", "GPU-b\n")
    one.communicate("\n")
