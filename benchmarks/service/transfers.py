"""Weights down and models up: our API beside nginx, with the same file, the same disk and the same client (curl).

nginx sends by sendfile and stores what is PUT as it is. We look the key and the job up; of what comes up we make the
SHA-256, check that it is a model, and wait until it is on the disk: nginx does none of that.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.service.rows import claimed_job
from benchmarks.service.servers import Server, answers, free_port, our_api, running

MEGABYTE = 10**6
LEAST_MEGABYTES = 1000  # what a measurement moves in all, so that connecting does not count
BLOCK = 1 << 20
SIZES, FULL_SIZES = (64, 256), (256, 2000)
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; {user}
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on; client_max_body_size 0; client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
    server {{ listen 127.0.0.1:{port}; root {folder}/www; location /up/ {{ dav_methods PUT; }} }}
}}
"""


@dataclass
class Site:
    """A server to be measured: its process, how it is asked, and the file that it hands out."""

    process: psutil.Process
    options: Sequence[str]  # curl's
    down: str
    sha256: str

    def fetch(self, megabytes: int, *, streams: int) -> Reading:
        """Megabytes a second that so many clients get together, each over one connection."""
        self._check_content()
        times = max(1, LEAST_MEGABYTES // (streams * megabytes))
        urls = ["--output", "/dev/null", self.down] * times
        with _measured(self.process) as measured:
            clients = [subprocess.Popen(["curl", "-sf", *self.options, *urls]) for _ in range(streams)]
            if failed := [client.returncode for client in clients if client.wait()]:
                raise RuntimeError(f"curl left with {failed}")
        return measured.reading(streams * times * megabytes)

    def send(self, command: Sequence[str], megabytes: int, check: Callable[[str], None]) -> Reading:
        """Megabytes a second that one client brings; `check` gets each answer."""
        times = max(1, LEAST_MEGABYTES // megabytes)
        found = []
        with _measured(self.process) as measured:
            for _ in range(times):
                done = subprocess.run(["curl", "-sf", *self.options, *command], capture_output=True, text=True)
                found.append(done.stdout if done.returncode == 0 else f"curl left with {done.returncode}")
        for answer in found:
            check(answer)
        return measured.reading(times * megabytes)

    def _check_content(self) -> None:
        """Fetch the file once: that it is the right one, and then lies in the page cache."""
        client = subprocess.Popen(["curl", "-sf", *self.options, self.down], stdout=subprocess.PIPE)
        assert client.stdout is not None
        digest = hashlib.file_digest(client.stdout, "sha256").hexdigest()
        if client.wait() or digest != self.sha256:
            raise RuntimeError(f"{self.down} is not the file that was to be handed out")


@dataclass
class Measured:
    """What a server took for something."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    grown_bytes: int = 0

    def reading(self, megabytes: int) -> Reading:
        """The rate, and the memory beside it: flat, whatever the size."""
        versions = {name: _version(name, option) for name, option in (("nginx", "-v"), ("curl", "-V"))}
        return Reading(
            versions=versions,
            value=megabytes / self.seconds,
            quality={"grown_mb": self.grown_bytes / MEGABYTE},
            cpu_seconds=self.cpu_seconds,
            peak_bytes=self.peak_bytes,
        )


@contextmanager
def _measured(process: psutil.Process) -> Iterator[Measured]:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # its peak is that of now
    measured, before, cpu = Measured(), process.memory_info().rss, sum(process.cpu_times()[:2])
    started_at = time.monotonic()
    yield measured
    measured.seconds = time.monotonic() - started_at
    measured.cpu_seconds = sum(process.cpu_times()[:2]) - cpu
    told = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert told is not None
    measured.peak_bytes = int(told[1]) * 1024
    measured.grown_bytes = max(0, measured.peak_bytes - before)


@contextmanager
def our_site(megabytes: int) -> Iterator[Site]:
    """Our API, with a job that has published weights of this size."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with our_api(folder, f"sqlite:///{folder}/jobs.sqlite3") as server:
            job_id, sha256 = _publish_weights(server, folder, megabytes)
            options = ["-H", f"Authorization: Bearer {server.key}"]
            process = psutil.Process(server.child.pid)
            yield Site(process, options, f"{server.url}/v1/jobs/{job_id}/weights", sha256)


@contextmanager
def nginx_site(megabytes: int) -> Iterator[Site]:
    """nginx, which serves and takes files by one worker."""
    with tempfile.TemporaryDirectory() as place:
        folder, port = Path(place), free_port()
        (folder / "www" / "up").mkdir(parents=True)
        sha256 = write_noise(folder / "www" / "weights", megabytes)
        config = NGINX.format(folder=folder, port=port, user="user root;" if os.geteuid() == 0 else "")
        (folder / "nginx.conf").write_text(config)
        is_ready = answers(f"http://127.0.0.1:{port}/nginx-is-ready")
        (folder / "www" / "nginx-is-ready").touch()
        with running("nginx", [_find("nginx"), "-c", f"{folder}/nginx.conf"], folder, ready=is_ready) as child:
            (worker,) = psutil.Process(child.pid).children()
            yield Site(worker, [], f"http://127.0.0.1:{port}/weights", sha256)


def write_noise(path: Path, megabytes: int) -> str:
    """A file of random bytes; answers its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(megabytes):
            block = os.urandom(MEGABYTE)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def write_model(path: Path, megabytes: int) -> None:
    """A tar of a model folder: config.json, and random weights in a safetensors file."""
    weights = path.with_suffix(".safetensors")
    values = megabytes * MEGABYTE // 4
    head = json.dumps({"weight": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    write_noise(weights, megabytes)
    size = len(head) + 8 + 4 * values
    with path.open("wb") as file, weights.open("rb") as noise:
        config = b'{"model_type": "gpt2"}'
        for name, length, pieces in (
            ("config.json", len(config), [config]),
            ("model.safetensors", size, [len(head).to_bytes(8, "little"), head, noise]),
        ):
            info = tarfile.TarInfo(f"model/{name}")
            info.size = length
            file.write(info.tobuf(tarfile.PAX_FORMAT))
            for piece in pieces:
                shutil.copyfileobj(io.BytesIO(piece) if isinstance(piece, bytes) else piece, file, BLOCK)
            file.write(bytes(-length % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    weights.unlink()


def _publish_weights(server: Server, folder: Path, megabytes: int) -> tuple[str, str]:
    """Do a worker's part for a job: its weights in storage, its rows written."""
    from core.jobs import publishing
    from core.jobs.artifacts import Published
    from core.jobs.database import Database
    from core.storage import artifact_key

    database = Database(f"sqlite:///{folder}/jobs.sqlite3")
    claim = claimed_job(database)
    key = artifact_key(claim.job_id, claim.fence, "model.safetensors")
    path = folder / "storage" / key
    path.parent.mkdir(parents=True)
    sha256 = write_noise(path, megabytes)
    size = megabytes * MEGABYTE
    file = Published("model.safetensors", key, size, sha256, "application/octet-stream")
    with database.write() as session:
        publishing.succeed_job(session, claim, files=[file], metrics={}, lineage={})
    database.close()
    return claim.job_id, sha256


def ours_down(megabytes: int, *, streams: int) -> Reading:
    """`GET /v1/jobs/{id}/weights`."""
    with our_site(megabytes) as site:
        return site.fetch(megabytes, streams=streams)


def nginx_down(megabytes: int, *, streams: int) -> Reading:
    """The same bytes as a plain file."""
    with nginx_site(megabytes) as site:
        return site.fetch(megabytes, streams=streams)


def ours_up(megabytes: int) -> Reading:
    """`POST /v1/files` of a base model: hashed, checked, on the disk when it is answered."""
    with our_site(1) as site, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tar"
        write_model(path, megabytes)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()

        def check(answer: str) -> None:
            if not answer.startswith("{") or json.loads(answer)["sha256"] != sha256:
                raise RuntimeError(f"not what was sent: {answer[:500]}")

        url = site.down.partition("/v1/")[0] + "/v1/files"
        return site.send(["-F", "purpose=base-model", "-F", f"file=@{path}", url], megabytes, check)


def nginx_up(megabytes: int) -> Reading:
    """`curl -T` to nginx's dav module."""
    with nginx_site(1) as site, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tar"
        write_model(path, megabytes)

        def check(answer: str) -> None:
            if answer.startswith("curl"):
                raise RuntimeError(answer)

        return site.send(["-T", str(path), site.down.replace("/weights", "/up/model.tar")], megabytes, check)


def _version(program: str, option: str) -> str:
    found = subprocess.run([_find(program), option], capture_output=True, text=True)
    told = re.search(r"[0-9][0-9.]+", found.stdout + found.stderr)
    return told[0] if told else ""


def _find(program: str) -> str:
    """The program's path: nginx lies where only root looks."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise FileNotFoundError(f"{program} is not installed: apt-get install nginx-light curl")
    return found


def _download(name: str, what: str, streams: int) -> Benchmark:
    return Benchmark(
        name=name,
        what=what,
        unit="MB/s",
        more_is_better=True,
        goal=Goal("at least 0.8x nginx; memory flat", ratio=0.8, limits={"grown_mb": 32}),
        ours=Side("Weightworks", partial(ours_down, streams=streams), packages=("uvicorn", "fastapi")),
        peers=[Side("nginx", partial(nginx_down, streams=streams))],
        size="MB",
        sizes=SIZES,
        full_sizes=FULL_SIZES,
    )


BENCHMARKS = [
    _download("download-one", "weights by one client, one connection", 1),
    _download("download-eight", "the same weights by eight clients at once", 8),
    Benchmark(
        name="upload",
        what="a model by one client, hashed and checked, beside `curl -T` to nginx's dav",
        unit="MB/s",
        more_is_better=True,
        goal=Goal("at least 0.6x nginx, with hashing; memory flat", ratio=0.6, limits={"grown_mb": 32}),
        ours=Side("Weightworks", ours_up, packages=("uvicorn", "fastapi", "python-multipart")),
        peers=[Side("nginx", nginx_up)],
        size="MB",
        sizes=SIZES,
        full_sizes=FULL_SIZES,
    ),
]
