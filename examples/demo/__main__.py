"""`make demo`: starts Weightworks, trains four models on real data, takes them home and measures them.

A large teacher learns handwritten digits; a small student sees a hundred of them; then the student learns again from
the teacher's answers to images that nobody labelled. Beside them, word vectors are learned from a year of news.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from examples.demo.data import write_digits, write_news
from examples.demo.measure import CLASSIFIERS
from examples.demo.specs import distillation, word_vectors
from weightworks.client import Client
from weightworks.connection import FILE_NAME
from weightworks.display import size
from weightworks.errors import WeightworksError
from weightworks.jobs import Job
from weightworks.processes import Child, last_lines
from weightworks.signals import Signals
from weightworks.watching import watch

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "demo-output"
START_SECONDS, STOP_SECONDS = 180.0, 60.0

console = Console()


def main() -> None:
    """The whole demo."""
    started_at = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    data = OUTPUT / "data"
    data.mkdir(parents=True)
    console.print("[bold]1.[/] Starting Weightworks: Redis, the API and a worker")
    with tempfile.TemporaryDirectory(prefix="weightworks-demo-") as home, server(Path(home)) as ours:
        console.print(f"   ready at {ours.connection.base_url} after {time.monotonic() - started_at:.0f} s")
        jobs = submit(ours, data)
        console.print("[bold]3.[/] Training")
        ended = watch(ours, jobs, console=console)
        check(ended)
        download(ours, ended)
    console.print("[bold]5.[/] Opening them in a fresh process, without the server")
    command = [sys.executable, "-m", "examples.demo.measure", str(OUTPUT), str(data / "digits-test.zip")]
    found = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    show(found, ended, seconds=time.monotonic() - started_at)


@contextmanager
def server(home: Path) -> Iterator[Client]:
    """`weightworks up` on a home of its own, gone when the block ends, however it ends."""
    command = [sys.executable, "-m", "weightworks.command", "up", "--home", str(home), "--port", "0"]
    log = home / "up.log"
    child = Child("weightworks up", command, folder=ROOT, environment=os.environ, log=log)
    child.start()
    try:
        ends_at = time.monotonic() + START_SECONDS
        while not (home / FILE_NAME).exists():
            if child.exit_status() is not None or time.monotonic() > ends_at:
                raise SystemExit(f"Weightworks did not start:\n{last_lines(log, 30)}")
            time.sleep(0.1)
        with Client(home=home) as ours:
            yield ours
    finally:
        stop(child)


def stop(child: Child) -> None:
    """Have it stop in order; whoever presses Ctrl-C meanwhile has it stop at once."""
    with Signals() as signals:
        child.ask_to_stop()
        ends_at = time.monotonic() + STOP_SECONDS
        while child.exit_status() is None and time.monotonic() < ends_at and not signals.stops:
            signals.wait(0.5)
        child.kill()


def submit(ours: Client, data: Path) -> dict[str, Job]:
    """Upload the data sets and submit the jobs."""
    console.print("[bold]2.[/] Uploading data sets")
    files = {}
    for name, path in {**write_digits(data), "news": write_news(data)}.items():
        file = ours.files.upload(path)
        files[name] = file.id
        console.print(f"   {file.filename}: {file.kind}, {described(file.profile or {})}, {size(file.bytes)}")
    pipeline = ours.pipelines.create(distillation(files))
    return {**pipeline.jobs, "words": ours.jobs.create(word_vectors(files["news"]))}


def described(profile: dict[str, Any]) -> str:
    """A data set's profile in a few words."""
    classes = profile.get("classes")
    return f"{profile['examples']:,} examples" + (f" of {len(classes)} classes" if classes else ", no classes")


def check(jobs: dict[str, Job]) -> None:
    """Leave, saying why, if a job did not succeed."""
    for label, job in jobs.items():
        if job.status != "succeeded":
            raise SystemExit(f"{label} {job.status}: {(job.error or {}).get('message')}")


def download(ours: Client, jobs: dict[str, Job]) -> None:
    """Bring all files home; the client checks each against its SHA-256."""
    console.print("[bold]4.[/] Downloading the weights")
    for label, job in jobs.items():
        paths = ours.jobs.download(job.id, OUTPUT / label)
        total = sum(path.stat().st_size for path in paths)
        console.print(f"   {label}: {len(paths)} files, {size(total)}, every SHA-256 as promised")


def show(found: dict[str, Any], jobs: dict[str, Job], *, seconds: float) -> None:
    """One table, a few words, and where everything is."""
    table = Table("", "what it learned from", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("accuracy", "parameters", "seconds"):
        table.add_column(column, justify="right")
    sources = ("1,347 labels", "100 labels", "100 labels, then the teacher")
    for label, source in zip(CLASSIFIERS, sources, strict=True):
        one, job = found["classifiers"][label], jobs[label]
        taken = (job.finished_at or 0) - (job.started_at or 0)
        table.add_row(label, source, f"{one['accuracy']:.1%}", f"{one['parameters']:,}", str(taken))
    console.print("\nHandwritten digits: accuracy on 450 images that no training has seen", highlight=False)
    console.print(table)
    console.print("BBC news: words and those whose vectors are nearest")
    for word, near in found["words"].items():
        console.print(f"  [bold]{word:10}[/] {', '.join(near)}", highlight=False)
    console.print(
        f"\nAll of it took {seconds:.0f} s. The weights lie in {OUTPUT.name}/: {', '.join(jobs)}, each a folder with"
        " model.safetensors,\nconfig.json, curves.png and a model card in README.md.\n"
        "The API and its docs page on this machine: [bold]make up[/], then http://127.0.0.1:8000/docs.",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    try:
        main()
    except WeightworksError as error:
        raise SystemExit(f"error: {error.message}") from None
    except KeyboardInterrupt:
        console.print("\nInterrupted; Weightworks is stopped.")
        raise SystemExit(130) from None
