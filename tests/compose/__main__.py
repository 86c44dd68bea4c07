"""`make compose-test`: builds and starts docker-compose.yml, trains through its proxy, breaks parts, and removes it.

It needs a Docker engine, and root's rights on it. Nothing is left, and nothing of another project is touched.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from examples.demo.data import write_digits
from tests.compose.engine import Engine, has_engine, run
from tests.compose.watched import Watched
from weightworks import Client

GUESSES = 400  # more than two APIs let an address make at once
SERVICES = ("proxy", "api", "worker", "redis", "postgres")
STUDENT = {"architecture": "mlp", "hidden_sizes": [64]}
ENCODER = {"architecture": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16]}

console = Console(highlight=False, soft_wrap=True)
started_at = time.monotonic()


def main() -> int:
    """All of it; answers the exit status."""
    if not has_engine():
        console.print("error: there is no Docker engine: install one, start it, and see that `docker info` works")
        return 1
    with tempfile.TemporaryDirectory(prefix="weightworks-compose-") as name:
        engine = Engine(Path(name))
        try:
            start(engine)
            with Client(engine.address, engine.secret("admin_key")) as client:
                travel(engine, client, Path(name))
        except BaseException as error:
            say(f"FAILED: {type(error).__name__}: {error}")
            console.print(engine.compose("logs", "--no-color", "--tail", "60"), markup=False)
            raise
        finally:
            engine.down()
        assert not engine.left(), f"left behind: {engine.left()}"
        say("stopped, and removed: no container, volume or network is left")
    return 0


def say(what: str) -> None:
    """A line of the transcript."""
    console.print(f"[{time.monotonic() - started_at:6.1f} s] {what}", markup=False)


def start(engine: Engine) -> None:
    """Build, start, migrate, and look at how it is locked up."""
    began = time.monotonic()
    engine.compose("build")
    (image,) = json.loads(run(["docker", "image", "inspect", "weightworks:test"]))
    say(f"built in {time.monotonic() - began:.0f} s: the image has {image['Size'] / 1e9:.2f} GB")
    engine.up()
    engine.until_healthy(*SERVICES)
    (migration,) = engine.containers("migrate")
    assert migration["State"]["ExitCode"] == 0
    say(f"migrated; {len(engine.containers('api'))} APIs, a worker, Redis and PostgreSQL are healthy behind the proxy")
    check_secrets(engine)


def check_secrets(engine: Engine) -> None:
    """Nobody is root, no file system is written to, and no secret is where it can be read from outside."""
    containers = {service: engine.containers(service) for service in (*SERVICES, "migrate")}
    told = json.dumps(containers)
    for name in ("admin_key", "database_password", "redis_password"):
        assert engine.secret(name) not in told, f"{name} is in a container's configuration"
    for service, found in containers.items():
        for container in found:
            assert container["HostConfig"]["ReadonlyRootfs"], service
            if container["State"]["Running"]:
                users = run(["docker", "top", container["Id"], "-eo", "pid,uid,args"]).splitlines()[1:]
                assert not [line for line in users if line.split()[1] == "0"], f"{service}: {users}"
                assert not [line for line in users if engine.secret("redis_password") in line], service
    refused = engine.compose("exec", "-T", "redis", "sh", "-c", "redis-cli ping 2>&1 || true")
    assert "NOAUTH" in refused, refused
    say("no process is root, no root file system can be written to, no secret is in an environment or a command line")


def travel(engine: Engine, client: Client, folder: Path) -> None:
    """Train, with everything in the way that may come."""
    headers = {"authorization": f"Bearer {engine.secret('admin_key')}"}
    with httpx.Client(headers=headers, timeout=30, limits=httpx.Limits(max_connections=None)) as http:
        files = {name: client.files.upload(path).id for name, path in write_digits(folder).items()}
        say(f"uploaded {len(files)} data sets through the proxy")
        jobs = {name: Watched(client, http, job) for name, job in submit(client, files).items()}
        kill_worker(engine, jobs["pretrained"])
        kill_redis(engine, jobs["teacher"])
        distilled = jobs["distilled"].until_succeeded(attempts=1)
        say(f"distilled: succeeded, accuracy {distilled.metrics['valid_accuracy']}; {described(jobs['distilled'])}")
        weights = {name: job.download(folder / name) for name, job in jobs.items()}
        total = sum(len(one) for one in weights.values())
        say(f"downloaded {total} files of {len(weights)} jobs, every SHA-256 as promised")
        check_ranges(http, jobs["teacher"])
        guess_keys(http, engine.address)
        again = Watched(client, http, client.jobs.create(pretraining(files)), watchers=6)
        kill_apis(engine, client, again)
        found = again.download(folder / "again")
        name = "model.safetensors"
        assert found[name] == weights["pretrained"][name], "a killed worker changed the weights"
        say(f"the weights are those of the job whose worker was killed, bit for bit: {found[name][:16]}...")
        drain_worker(engine, Watched(client, http, client.jobs.create(pretraining(files))))
        lose_everything(engine, jobs["distilled"], folder / "restored", weights["distilled"])


def guess_keys(http: httpx.Client, address: str) -> None:
    """Strangers are told apart by their address, and cannot make up another."""
    answers = Counter(
        http.get(
            f"{address}/v1/jobs",
            headers={"authorization": f"Bearer ww-{number}", "x-forwarded-for": f"192.0.2.{number % 250}"},
        ).status_code
        for number in range(GUESSES)
    )
    assert set(answers) == {401, 429}, answers
    assert http.get(f"{address}/v1/jobs").status_code == 200
    say(
        f"of {GUESSES} guesses at keys under made-up addresses {answers[429]} were refused unread; who has a key is not"
    )


def pretraining(files: dict[str, str]) -> dict[str, Any]:
    """An encoder of images that nobody labelled."""
    return {
        "method": "simclr",
        "dataset": files["unlabelled"],
        "architecture": ENCODER,
        "epochs": 20,
        "batch_size": 128,
        "checkpoint_every": 10,
    }


def submit(client: Client, files: dict[str, str]) -> dict[str, Any]:
    """Pretrain, fine-tune, distil."""
    tuning = {
        "method": "fine_tuning",
        "task": "image_classification",
        "base": {"job": "pretrained"},
        "dataset": files["labelled"],
        "validation": files["test"],
        "learning_rate": 3e-3,
        "epochs": 12,
        "checkpoint_every": 50,
    }
    distillation = {
        "method": "distillation",
        "dataset": files["unlabelled"],
        "validation": files["test"],
        "teacher": {"job": "teacher"},
        "student": STUDENT,
        "epochs": 40,
        "learning_rate": 5e-3,
    }
    pipeline = {"pretrained": pretraining(files), "teacher": tuning, "distilled": distillation}
    made = client.pipelines.create({"name": "digits", "jobs": pipeline}).jobs
    say(f"submitted a pipeline: {', '.join(made)}; each is watched through the proxy")
    return made


def kill_worker(engine: Engine, job: Watched) -> None:
    """In mid-job: another attempt goes on from the last checkpoint."""
    job.until_seen("checkpoint")
    for container in engine.containers("worker"):
        engine.kill(container)
    say(f"{job.label}: killed the worker's container after a checkpoint")
    engine.up()
    job.until_succeeded(attempts=2)
    resumed = [event for event in job.watchers[0].events if "checkpoint of step" in event.data["message"]]
    assert resumed, "the second attempt did not go on from a checkpoint"
    say(f"{job.label}: {resumed[0].data['message']} It succeeded in attempt 2; {described(job)}")


def kill_redis(engine: Engine, job: Watched) -> None:
    """In mid-job: training does not notice, and who watches misses nothing."""
    job.until_seen("checkpoint")
    engine.kill(engine.containers("redis")[0])
    say(f"{job.label}: killed the container of Redis")
    for _ in range(3):
        job.until_seen("metrics")
    say(f"{job.label}: trains on, and its watcher hears of it, without Redis")
    engine.up()
    engine.until_healthy("redis")
    done = job.until_succeeded(attempts=1)
    say(f"{job.label}: succeeded in attempt 1, accuracy {done.metrics['valid_accuracy']}; {described(job)}")


def kill_apis(engine: Engine, client: Client, job: Watched) -> None:
    """One after the other, so that whoever watches is cut off at least once; requests are answered all the while."""
    job.until_seen("metrics")
    for number, container in enumerate(engine.containers("api"), 1):
        engine.kill(container)
        for _ in range(20):
            client.jobs.get(job.id)
        say(f"{job.label}: killed API {number} of 2; 20 requests were answered by the other")
        engine.up()
        engine.until_healthy("api")
    job.until_succeeded(attempts=1)
    cut = [watcher for watcher in job.watchers if watcher.connections > 1]
    assert cut, "no watcher was connected to an API that was killed"
    cut_off = f"{len(cut)} of {len(job.watchers)} watchers were cut off"
    say(f"{job.label}: succeeded in attempt 1; {cut_off}; {described(job)}")


def drain_worker(engine: Engine, job: Watched) -> None:
    """`docker compose stop worker`: it writes a checkpoint and gives its job back; the attempt does not count."""
    job.until_seen("metrics")
    began = time.monotonic()
    engine.compose("stop", "worker")
    (stopped,) = engine.containers("worker")
    seconds, status = time.monotonic() - began, stopped["State"]["ExitCode"]
    waiting = job.now()
    assert (status, waiting.status, waiting.attempt) == (0, "queued", 0), (status, waiting)
    say(f"{job.label}: stopped the worker: in {seconds:.1f} s it gave its job back and left with status {status}")
    engine.up()
    job.until_succeeded(attempts=1)
    say(f"{job.label}: went on when there was a worker again, and succeeded in attempt 1; {described(job)}")


def check_ranges(http: httpx.Client, job: Watched) -> None:
    """Through the proxy: a part of a file, and what was asked for already."""
    url = f"{job.client.connection.base_url}/v1/jobs/{job.id}/artifacts/model.safetensors"
    whole = http.get(url)
    part = http.get(url, headers={"range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, whole.content[100:300])
    assert http.get(url, headers={"if-none-match": whole.headers["etag"]}).status_code == 304
    say("Range and ETag pass through the proxy: 206 with the bytes asked for, and 304")


def lose_everything(engine: Engine, job: Watched, folder: Path, weights: dict[str, str]) -> None:
    """Back up, remove all containers and volumes, restore onto new ones."""
    database, storage = engine.back_up()
    engine.down()
    sizes = f"{len(database) / 1e6:.1f} MB of database and {len(storage) / 1e6:.1f} MB of storage"
    say(f"backed up {sizes}; removed all containers and volumes")
    engine.restore(database, storage)
    engine.until_healthy(*SERVICES)
    assert job.now().status == "succeeded"
    assert job.download(folder) == weights
    say("restored: the jobs are there, and the weights have the SHA-256 that they had")


def described(job: Watched) -> str:
    """What its watchers saw."""
    events = job.watchers[0].events
    fences = len({event.place[0] for event in events})
    connections = sum(watcher.connections for watcher in job.watchers)
    return f"{len(events)} events under {fences} fences, over {connections} connections, without gap or repeat"


if __name__ == "__main__":
    sys.exit(main())
