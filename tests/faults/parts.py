"""Redis, API processes and workers that can be killed, stopped, continued and started again."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0
BELOW_EPHEMERAL = (20_000, 32_000)  # a port of these is not given to an outgoing connection while its server is down


def until(look: Callable[[], Any], *, seconds: float = PATIENCE, what: str = "") -> Any:
    """What `look` answers, once that is true."""
    ends_at = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > ends_at:
            raise TimeoutError(f"waited {seconds:.0f} seconds in vain {what}".strip())
        time.sleep(0.02)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether it is there, and not merely unburied."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def suspended(*processes: psutil.Process) -> Iterator[None]:
    """SIGSTOP until the block ends; what has ended, or ends meanwhile, is passed over."""
    try:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@contextlib.contextmanager
def repeating(action: Callable[[], object], *, every: float = 0.0) -> Iterator[None]:
    """Do it again and again, so many seconds after its end, in a thread beside the block, until the block ends."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.wait(every):
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


class Redis:
    """A private Redis that writes an append-only file; its socket stays the same from start to start."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ww-redis-"))
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.append_only_file = self.folder / "appendonly.aof"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        """The server's process."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def is_running(self) -> bool:
        """Whether the server is there."""
        return self._process is not None and self._process.poll() is None

    def client(self) -> redis.Redis:
        """A connection."""
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start it with what its file holds, and wait until it answers; one that runs goes on."""
        if self.is_running:
            return
        binary = Path(sys.executable).with_name("redis-server")
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "yes"]
        with (self.folder / "redis.log").open("ab") as log:
            command = [binary, *arguments, "--dir", str(self.folder)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, what="for Redis")

    def _answers(self) -> bool:
        with self.client() as client, contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def flush(self) -> None:
        """FLUSHALL."""
        with self.client() as client:
            client.flushall()

    def save_copy(self) -> Path:
        """A copy of its append-only file as it is now."""
        copy = self.folder / f"copy-{time.monotonic_ns()}.aof"
        shutil.copyfile(self.append_only_file, copy)
        return copy

    def restart_from(self, copy: Path) -> None:
        """Kill it, and start it with an older append-only file."""
        self.kill()
        shutil.copyfile(copy, self.append_only_file)
        self.start()

    def close(self) -> None:
        """End it and remove all it wrote."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Apis:
    """API processes, forked from one that has imported everything; each keeps its port from start to start."""

    def __init__(self, environment: Mapping[str, str], log: Path, *, count: int) -> None:
        self._environment = environment
        self._log = log
        self._ports = [free_port() for _ in range(count)]
        self._processes: list[psutil.Process | None] = [None] * count
        self._server: subprocess.Popen[str] | None = None
        self._forking = threading.Lock()

    @property
    def addresses(self) -> list[str]:
        """Where they listen, whether they run or not."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    def prepare(self) -> None:
        """Start importing, without waiting."""
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.serve"],
                cwd=ROOT,
                env=dict(self._environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def process(self, index: int = 0) -> psutil.Process:
        """The process of one of them."""
        process = self._processes[index]
        assert process is not None
        return process

    def is_running(self, index: int) -> bool:
        """Whether it is there."""
        process = self._processes[index]
        return process is not None and is_alive(process)

    def start(self, *indexes: int, should_wait: bool = True) -> None:
        """Start those that do not run, all unless told which, and wait until they answer."""
        chosen = indexes or range(len(self._ports))
        for index in chosen:
            self._ensure(index)
        if should_wait:
            for index in chosen:
                until(lambda index=index: self._ensure(index) and _answers(self.addresses[index]), what="for the API")

    def _ensure(self, index: int) -> bool:
        """Start one that does not run: the first time, or again, since it ends where it finds no database."""
        with self._forking:
            if not self.is_running(index):
                self._processes[index] = self._fork(self._ports[index])
        return True

    def _fork(self, port: int) -> psutil.Process:
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{port}\n")
        self._server.stdin.flush()
        return psutil.Process(int(self._server.stdout.readline()))

    def kill(self, *indexes: int) -> None:
        """`kill -9`, of all unless told which."""
        for index in indexes or range(len(self._ports)):
            if self.is_running(index):
                self.process(index).kill()
                until(lambda index=index: not self.is_running(index))

    def terminate(self, *indexes: int) -> None:
        """SIGTERM, to all unless told which, and wait until they are gone."""
        for index in indexes or range(len(self._ports)):
            if self.is_running(index):
                self.process(index).terminate()
                until(lambda index=index: not self.is_running(index))

    def close(self) -> None:
        """End them all."""
        if self._server is not None:
            for pipe in (self._server.stdin, self._server.stdout):
                if pipe is not None:
                    pipe.close()
            self._server.kill()
            self._server.wait()


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{address}/healthz", timeout=5).status_code == 200
    return False


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.randrange(*BELOW_EPHEMERAL)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Worker:
    """`python -m worker`: its main process, and by way of that what it started."""

    def __init__(self, environment: Mapping[str, str], folder: Path, name: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._ready_file = folder / f"{name}.ready"
        self._environment = {**environment, "WEIGHTWORKS_READY_FILE": str(self._ready_file)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker"], cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        """The main process's id."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether its main process is there."""
        return self.process.poll() is None

    @property
    def is_warm(self) -> bool:
        """Whether it has claimed, or tried to."""
        return self._ready_file.exists()

    def family(self) -> list[psutil.Process]:
        """The main process and all below it."""
        try:
            main = psutil.Process(self.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def send_signal(self, number: int) -> None:
        """Send a signal to the main process."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9` of the main process."""
        self.process.kill()
        self.process.wait()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(seconds)

    def close(self) -> None:
        """End it and all below it."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def environment_of(process: psutil.Process) -> Mapping[str, str]:
    """What a process was started with; empty where it is gone, or not ours."""
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}
