"""The containers of docker-compose.yml under a project of their own, with secrets and a port of their own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LABEL, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
# Leases are short, so that a job of a killed worker is taken up again in seconds; one thread, so that sums are added in
# one order on any machine.
SETTINGS = {"LEASE_SECONDS": "8", "SWEEP_SECONDS": "1", "THREADS": "1"}
IN_STORAGE = ("run", "--rm", "-T", "--no-deps", "migrate", "tar", "-C", "/var/lib/weightworks")


class Engine:
    """`docker compose` for one project, and `docker` for what it made."""

    def __init__(self, folder: Path) -> None:
        self.project = f"weightworks-test-{os.getpid()}"
        self.secrets = folder / "secrets"
        self.address = f"http://127.0.0.1:{_free_port()}"
        self._compose = _compose_command()
        self._override = folder / "override.yml"
        settings = {f"WEIGHTWORKS_{name}": value for name, value in SETTINGS.items()}
        services = {name: {"environment": settings} for name in ("api", "worker")}
        self._override.write_text(json.dumps({"services": services}), encoding="utf-8")
        self._environment = {
            **os.environ,
            "SECRETS_DIR": str(self.secrets),
            "HTTP_PORT": self.address.rpartition(":")[2],
            "IMAGE_TAG": "test",
            "COMPOSE_PROJECT_NAME": self.project,
        }
        run(["sh", "deploy/secrets.sh", str(self.secrets)])

    def secret(self, name: str) -> str:
        """What is in a file of the secrets."""
        return (self.secrets / name).read_text(encoding="utf-8").strip()

    def compose(self, *arguments: str) -> str:
        """Run a command of `docker compose`; answers its output."""
        return self.pipe(*arguments).decode()

    def pipe(self, *arguments: str, given: bytes = b"") -> bytes:
        """The same, with something to read."""
        files = ["-f", "docker-compose.yml", "-f", str(self._override)]
        return pipe([*self._compose, *files, *arguments], environment=self._environment, given=given)

    def up(self) -> None:
        """Start whatever does not run."""
        self.compose("up", "--detach", "--no-recreate")

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What the engine knows of a service's containers, by their numbers."""
        of_service = ["--filter", f"label={SERVICE}={service}"]
        ids = run(
            ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={self.project}", *of_service]
        ).split()
        found = json.loads(run(["docker", "inspect", *ids])) if ids else []
        return sorted(found, key=lambda one: one["Name"])

    def until_healthy(self, *services: str, seconds: float = 300.0) -> None:
        """Wait until all containers of the services say that they are well."""

        def all_are() -> bool:
            states = [one["State"] for service in services for one in self.containers(service)]
            return bool(states) and all(state.get("Health", {}).get("Status") == "healthy" for state in states)

        until(all_are, seconds=seconds, what=f"for {', '.join(services)} to be healthy")

    def kill(self, container: Mapping[str, Any]) -> None:
        """End a container as a crash of its machine would."""
        run(["docker", "kill", container["Id"]])

    def left(self) -> list[str]:
        """Containers, volumes and networks that are still there."""
        kinds = (["ps", "--all"], ["volume", "ls"], ["network", "ls"])
        return [
            f"{kind[0]} {name}"
            for kind in kinds
            for name in run(["docker", *kind, "--quiet", "--filter", f"label={LABEL}={self.project}"]).split()
        ]

    def back_up(self) -> tuple[bytes, bytes]:
        """The database and the storage, as docs/deployment.md says."""
        self.compose("stop", "api", "worker")
        dump = ["pg_dump", "-U", "weightworks", "--format=custom", "weightworks"]
        database = self.pipe("exec", "-T", "postgres", *dump)
        storage = self.pipe(*IN_STORAGE, "-c", ".")
        self.up()
        return database, storage

    def restore(self, database: bytes, storage: bytes) -> None:
        """Onto empty volumes, as docs/deployment.md says."""
        self.compose("up", "--detach", "postgres")
        self.until_healthy("postgres")
        self.pipe(
            "exec", "-T", "postgres", "pg_restore", "-U", "weightworks", "--dbname", "weightworks", given=database
        )
        self.pipe(*IN_STORAGE, "-x", given=storage)
        self.up()

    def down(self) -> None:
        """Remove all of it, the volumes too."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "60")


def run(command: list[str]) -> str:
    """A command's output; raises RuntimeError with the end of what it said if it failed."""
    return pipe(command).decode()


def pipe(command: list[str], *, environment: Mapping[str, str] | None = None, given: bytes = b"") -> bytes:
    """The same, of a command that reads something."""
    done = subprocess.run(command, cwd=ROOT, env=environment, input=given, capture_output=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).decode(errors="replace").splitlines()[-40:])
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


def until(look: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """What `look` answers, once that is true."""
    ends_at = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > ends_at:
            raise TimeoutError(f"waited {seconds:g} seconds in vain {what}")
        time.sleep(0.3)
    return found


def has_engine() -> bool:
    """Whether there is an engine to talk to."""
    return shutil.which("docker") is not None and not subprocess.run(["docker", "info"], capture_output=True).returncode


def _compose_command() -> list[str]:
    """The plugin of today, or the program of before."""
    plugin = ["docker", "compose"]
    return ["docker-compose"] if subprocess.run([*plugin, "version"], capture_output=True).returncode else plugin


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
