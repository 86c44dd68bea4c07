"""`weightworks up`: Redis, migrations, the API and a worker on this machine, until Ctrl-C.

Everything lives under one home: the database, the files, the logs, and `connection.json` while it is ready.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from weightworks.connection import FILE_NAME, Connection, read_connection, write_connection, write_private
from weightworks.errors import CannotStart, NotConnected
from weightworks.processes import Child, describe, last_lines
from weightworks.redis_server import PrivateRedis
from weightworks.signals import Signals

START_SECONDS = 180.0
LOOK_SECONDS = 0.1
WORKER_SECONDS, API_SECONDS, REDIS_SECONDS = 45.0, 10.0, 5.0

Say = Callable[[str], None]


def up(home: Path, *, port: int, workers: int, say: Say) -> int:
    """Run until told to stop; answers the exit status. Raises CannotStart."""
    root = find_root()
    os.umask(0o077)  # whatever is written, by whichever process, is for this user only
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(home), listen(port) as listener, Signals() as signals:
        (home / FILE_NAME).unlink(missing_ok=True)
        stack = Stack(home, root=root, listener=listener, workers=workers, signals=signals, say=say)
        try:
            if stack.start():
                write_connection(home, stack.connection)
                say(stack.welcome())
                stack.keep_alive()
        finally:
            (home / FILE_NAME).unlink(missing_ok=True)
            stack.stop()
    return 0


class Stack:
    """The four programs in the order in which they start; they stop in the opposite one."""

    def __init__(
        self, home: Path, *, root: Path, listener: socket.socket, workers: int, signals: Signals, say: Say
    ) -> None:
        self.home = home
        self.root = root
        self.signals = signals
        self.say = say
        self.logs = home / "logs"
        self.logs.mkdir(exist_ok=True)
        self.connection = Connection(f"http://127.0.0.1:{listener.getsockname()[1]}", admin_key(home))
        self.private_redis = PrivateRedis(home)
        self.redis = self._child("redis", self.private_redis.command, given=self.private_redis.configuration())
        self.api = self._child("api", api_command(listener), descriptors=(listener.fileno(),))
        self.api.environment["WEIGHTWORKS_ADMIN_KEY"] = self.connection.api_key or ""
        self.worker = self._child("worker", worker_command(workers))
        self.worker_ready = home / "worker.ready"
        self.worker.environment["WEIGHTWORKS_READY_FILE"] = str(self.worker_ready)
        self.children = (self.redis, self.api, self.worker)

    def _child(self, name: str, command: list[str], *, given: bytes = b"", descriptors: tuple[int, ...] = ()) -> Child:
        return Child(
            name,
            command,
            folder=self.root,
            environment=self.environment(),
            log=self.logs / f"{name}.log",
            given=given,
            descriptors=descriptors,
        )

    def environment(self) -> dict[str, str]:
        """What the others are told: all of it lies in this home, unless another database or a bucket is named."""
        storage = os.environ.get("WEIGHTWORKS_STORAGE_URL", "")
        return {
            "WEIGHTWORKS_DATABASE_URL": f"sqlite:///{self.home}/weightworks.sqlite3",
            "WEIGHTWORKS_SCRATCH_PATH": str(self.home / "scratch"),
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "WEIGHTWORKS_REDIS_URL": self.private_redis.url,
            "WEIGHTWORKS_STORAGE_URL": storage if storage.startswith("s3://") else str(self.home / "storage"),
        }

    def start(self) -> bool:
        """Start all and wait until they are ready; answers False if told to stop meanwhile."""
        self.say("Starting Weightworks ...")
        self.redis.start()
        if not self.migrate() or not self.wait_until(self.private_redis.answers, "Redis"):
            return False
        self.worker_ready.unlink(missing_ok=True)
        self.worker.start()
        self.api.start()
        return self.wait_until(self.is_ready, "the API and the worker")

    def migrate(self) -> bool:
        """Bring the database to the newest revision before anyone uses it; answers False if told to stop."""
        migrations = self._child("migrations", [sys.executable, "-m", "alembic", "upgrade", "head"])
        migrations.start()
        while (status := migrations.exit_status()) is None:
            if self.signals.stops:
                migrations.kill()
                return False
            self.signals.wait(LOOK_SECONDS)
        if status:
            raise CannotStart(f"the database cannot be migrated, see {migrations.log}:\n{last_lines(migrations.log)}")
        return True

    def is_ready(self) -> bool:
        """Whether a worker has its trainer warm, and the API reaches all that it needs."""
        if not self.worker_ready.exists():
            return False
        try:
            return httpx.get(f"{self.connection.base_url}/readyz", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def wait_until(self, is_ready: Callable[[], bool], name: str) -> bool:
        """Wait for something to be ready; answers False if told to stop. Raises CannotStart if a child has ended."""
        ends_at = time.monotonic() + START_SECONDS
        while not self.signals.stops:
            for child in self.children:
                if (status := child.exit_status()) is not None:
                    end = describe(status)
                    raise CannotStart(f"{child.name} ended ({end}), see {child.log}:\n{last_lines(child.log)}")
            if is_ready():
                return True
            if time.monotonic() > ends_at:
                raise CannotStart(f"{name} was not ready within {START_SECONDS:.0f} seconds, see {self.logs}")
            self.signals.wait(LOOK_SECONDS)
        return False

    def welcome(self) -> str:
        """Where everything is."""
        base = self.connection.base_url
        return (
            f"Weightworks is ready.\n"
            f"  API        {base}/v1\n"
            f"  Docs       {base}/docs\n"
            f"  Data       {self.home}\n"
            f"  Key        in {self.home / FILE_NAME}: the client and the command find it there\n"
            f"Ctrl-C stops it."
        )

    def keep_alive(self) -> None:
        """Start again whatever ends, until told to stop."""
        while not self.signals.stops:
            for child in self.children:
                if told := child.keep_alive():
                    self.say(told)
            self.signals.wait(1.0)

    def stop(self) -> None:
        """Worker, API, Redis, each after the other; told to stop again, all at once."""
        patience = 2 if self.signals.stops else 1  # before it is said: the answer may come at once
        self.say("Stopping ... (once more to stop at once)")
        for child, seconds in ((self.worker, WORKER_SECONDS), (self.api, API_SECONDS), (self.redis, REDIS_SECONDS)):
            ends_at = time.monotonic() + seconds
            child.ask_to_stop()
            while child.pid and child.exit_status() is None:
                left = ends_at - time.monotonic()
                if left <= 0 or self.signals.stops >= patience:
                    break
                self.signals.wait(left)
            child.kill()


def api_command(listener: socket.socket) -> list[str]:
    """The API on a socket that is bound already: while it is started again, clients wait instead of being refused."""
    return [sys.executable, "-m", "api", "--fd", str(listener.fileno())]


def worker_command(workers: int) -> list[str]:
    """One Celery worker with a slot, and so a warm trainer, for each job that may run at once."""
    return [sys.executable, "-m", "worker", "--concurrency", str(workers)]


def find_root() -> Path:
    """The folder that holds the server's rooms: WEIGHTWORKS_ROOT, or the one beside this package."""
    root = Path(os.environ.get("WEIGHTWORKS_ROOT") or Path(__file__).parents[1]).absolute()
    if not all((root / name).exists() for name in ("api/main.py", "worker/app.py", "core", "alembic.ini")):
        raise CannotStart(
            f"{root} does not hold the server (api/, worker/, core/): run this in a checkout of Weightworks,"
            " or set WEIGHTWORKS_ROOT to one"
        )
    return root


def admin_key(home: Path) -> str:
    """The home's own key, the same at each start, readable by this user only."""
    path = home / "admin_key"
    if not path.exists():
        write_private(path, f"ww-{secrets.token_urlsafe(32)}\n")
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the home: a second one is refused. The lock goes with this process, however that ends."""
    with (home / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"Weightworks is running already on {home}{_where(home)}") from None
        yield


def _where(home: Path) -> str:
    try:
        return f", at {read_connection(home).base_url}"
    except NotConnected:
        return ""


@contextmanager
def listen(port: int) -> Iterator[socket.socket]:
    """The API's socket on this machine's own address; raises CannotStart if the port is taken."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits this
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise CannotStart(f"port {port} cannot be used ({error.strerror}): choose another, or --port 0") from None
        listener.listen(1024)
        yield listener
