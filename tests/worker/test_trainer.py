"""What a trainer makes of its orders and of what goes wrong, without a supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from socket import socketpair

import pytest
import torch

from core.data.examples import write_table
from core.errors import InvalidData, InvalidSpec, Problem
from core.training.checkpoint import write_checkpoint
from worker.channel import Channel
from worker.endings import TrainerError, how_it_ended
from worker.processes import marked, own_marker, stat_fields, sweep
from worker.trainer import Reporter, Sender, as_failure, newest_whole
from worker.trainers import trainer_environment


def said(channel: Channel) -> list[dict]:
    """All that comes until the other end closes."""
    messages = []
    while True:
        try:
            messages += channel.receive()
        except EOFError:
            return messages


@pytest.fixture
def sender():
    ours, theirs = socketpair()
    sender = Sender(Channel(theirs))
    sender.start()
    sender.heard = Channel(ours)
    yield sender
    ours.close()
    theirs.close()


def close(sender: Sender) -> list[dict]:
    sender.finish()
    sender.channel.close()
    return said(sender.heard)


def test_numbers_that_are_not_finite_are_told_once_in_words(sender: Sender) -> None:
    reporter = Reporter(sender)
    for step in (1, 2):
        reporter.metrics(step, {"loss": float("nan"), "accuracy": 0.5})
    first, *rest = close(sender)
    assert (first["type"], first["text"], first["level"]) == ("message", "loss is nan at step 1", "warn")
    assert [message["values"] for message in rest] == [{"accuracy": 0.5}, {"accuracy": 0.5}]


def test_the_first_whole_checkpoint_is_used(sender: Sender, tmp_path) -> None:
    whole = write_checkpoint({"step": 10}, tmp_path / "10", step=10)
    other = write_checkpoint({"step": 20}, tmp_path / "20", step=20)
    cut = write_checkpoint({"step": 30}, tmp_path / "30", step=30)
    cut.path.write_bytes(cut.path.read_bytes()[:-1])
    listed = [
        {"path": str(tmp_path / "40"), "sha256": "0" * 64, "step": 40},  # gone
        {"path": str(cut.path), "sha256": cut.sha256, "step": 30},
        {"path": str(other.path), "sha256": whole.sha256, "step": 20},  # another one's hash
        {"path": str(whole.path), "sha256": whole.sha256, "step": 10},
    ]
    assert newest_whole(listed, Reporter(sender)) == {"step": 10}
    assert newest_whole(listed[:3], Reporter(sender)) is None
    texts = [message["text"] for message in close(sender)]
    assert [text.partition(" is damaged")[0] for text in texts[:3]] == [
        f"The checkpoint of step {step}" for step in (40, 30, 20)
    ]
    assert texts[3] == "Goes on from the checkpoint of step 10."
    assert texts[-1] == "No checkpoint is whole: training starts from the beginning."


@pytest.mark.parametrize(
    ("error", "code", "is_retryable"),
    [
        (InvalidSpec("no", param="device"), "invalid_spec", False),
        (ZeroDivisionError("division by zero"), "training_failed", False),
        (OSError(28, "No space left on device"), "storage_full", True),
        (MemoryError(), "out_of_memory", True),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory", True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), "out_of_memory", False),
    ],
)
def test_errors_are_told_in_the_users_terms(error: Exception, code: str, is_retryable: bool) -> None:
    failure = as_failure(error)
    assert (failure["error"]["code"], failure["is_retryable"]) == (code, is_retryable)
    assert "\n" not in failure["error"]["message"]
    if code == "training_failed":
        assert failure["error"]["message"].startswith(type(error).__name__)


def test_an_error_reaches_the_row_as_the_trainer_told_it() -> None:
    told = json.loads(json.dumps(as_failure(InvalidData([Problem("line 3", "is empty")]))))["error"]
    assert TrainerError(told).as_dict() == told
    assert told["problems"] == [{"where": "line 3", "what": "is empty"}]


def test_ends_are_told_in_words() -> None:
    assert how_it_ended(9) == "killed by signal 9 (SIGKILL); it may have run out of memory"
    assert how_it_ended(11) == "killed by signal 11 (SIGSEGV)"
    assert how_it_ended(3 << 8) == "exit status 3"


def test_a_trainer_gets_what_it_needs_of_the_environment_and_no_credentials() -> None:
    seen = trainer_environment(
        {
            "PATH": "/bin",
            "CUDA_VISIBLE_DEVICES": "0",
            "WEIGHTWORKS_REDIS_URL": "unix://:pw@/s",
            "REDIS_URL": "redis://:pw@h",
            "DATABASE_URL": "postgresql://u:pw@h",
            "PGPASSWORD": "pw",
            "AWS_SECRET_ACCESS_KEY": "pw",
            "SOME_API_KEY": "pw",
        }
    )
    assert (seen["PATH"], seen["CUDA_VISIBLE_DEVICES"]) == ("/bin", "0")
    assert "pw" not in str(seen)


def test_a_trainer_that_hears_of_no_renewal_stops_itself(tmp_path) -> None:
    """Its supervisor is stopped, say, or cannot reach the database."""
    ours, theirs = socketpair()
    code = "import sys; from worker.zygote import _train; sys.exit(_train(int(sys.argv[1])))"
    with theirs:
        trainer = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
        )
    channel = Channel(ours)
    write_table(tmp_path / "data")
    spec = {"method": "autoencoder", "dataset": "file-1", "steps": 10**6, "checkpoint_every": 10**6}
    orders = {"threads": 1, "memory_bytes": 2**33, "until": time.monotonic() + 600}
    channel.send({"type": "order", "spec": spec, **orders})
    heard = channel.receive()
    while not any(message["type"] == "wants" for message in heard):
        heard = channel.receive()
    places = {"inputs": {"dataset": {"path": str(tmp_path / "data")}}, "folder": str(tmp_path / "run")}
    channel.send({"type": "order", **places, "checkpoints": [], "lineage": {}, "max_unpacked_bytes": 1})
    while not any(message["type"] == "metrics" for message in channel.receive()):
        pass
    threading.Thread(target=said, args=[channel], daemon=True).start()
    channel.send({"type": "renewed", "until": time.monotonic() + 0.2})
    _, errors = trainer.communicate(timeout=120)
    assert trainer.returncode == 75
    assert b"The lease was not renewed in time" in errors
    channel.close()


def test_what_carries_the_marker_is_swept_though_it_left_the_group() -> None:
    environment = {**os.environ, "WEIGHTWORKS_SUPERVISED_BY": own_marker()}
    living = f"1-{stat_fields(1)[19]}"  # lest another test's worker sweeps it
    stray = subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "WEIGHTWORKS_SUPERVISED_BY": living})
    try:
        assert {stray.pid, other.pid} <= {pid for pid, _ in marked()}
        assert sweep(own_marker(), spare={os.getpid()}) >= 1
        assert stray.wait(60) == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
