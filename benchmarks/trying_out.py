"""Models that are tried out: tokens a second beside transformers, and what a training loses to them.

`python -m benchmarks.trying_out` prints both, on SmolLM2-135M-Instruct and one thread each. CPU seconds are counted,
for the machine may have other work; the training's wall clock tells something on an idle machine alone.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.quality.fine_tuning_texts import smollm2
from core.environment import learning_environment

TOKENS = 64
ROUNDS = 3
TRAINING_SECONDS = 10.0
MESSAGES = [{"role": "user", "content": "Explain in a few sentences how a bicycle stays upright."}]
NAMES = ("weightworks", "transformers")


def generation_rates() -> dict[str, list[float]]:
    """Tokens a CPU second of greedy answers, prompt included, by turns; the two must say the same."""
    import torch
    import transformers

    from core.serving.generation import Asked, generate
    from core.serving.opening import LanguageModel, open_model
    from core.serving.sampling import Sampling

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = open_model(smollm2(), device="cpu")
    if not isinstance(model, LanguageModel):
        raise TypeError("SmolLM2 is a language model")
    asked = Asked(messages=MESSAGES, max_tokens=TOKENS, sampling=Sampling(temperature=0.0))
    prompt = model.tokenizer.apply_chat_template(
        MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )

    def ours() -> str:
        said = [one for step in generate(model, asked) for one in step]
        return "".join(one["text"] for one in said if one["type"] == "piece")

    def theirs() -> str:
        written = model.network.generate(**prompt, max_new_tokens=TOKENS, do_sample=False)
        return str(model.tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))

    if ours() != theirs():
        raise AssertionError("the answers differ")
    count = len(model.tokenizer(ours())["input_ids"])
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(ROUNDS):
        for name, write in zip(NAMES, (ours, theirs), strict=True):
            found[name].append(count / _cpu_seconds(write))
    return found


def _cpu_seconds(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


TRAINING = """
import json, os, sys, time
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
network = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(6)])
optimizer = torch.optim.AdamW(network.parameters())
x = torch.randn(256, 512)
def step():
    optimizer.zero_grad()
    network(x).square().mean().backward()
    optimizer.step()
for _ in range(20):
    step()
wall, cpu, steps = time.monotonic(), time.process_time(), 0
while time.monotonic() - wall < float(sys.argv[1]):
    step()
    steps += 1
print(json.dumps({"wall": steps / (time.monotonic() - wall), "cpu": steps / (time.process_time() - cpu)}))
"""


def training_rates() -> dict[str, float]:
    """Steps a second and a CPU second of a training, alone and while answers are written beside it on the same core."""
    core = max(os.sched_getaffinity(0))
    alone = [_train(core) for _ in range(2)]
    with _serving(core) as write:
        written, began = 0, time.monotonic()
        training = _training(core)
        while training.poll() is None:
            written += next(write)
        beside = json.loads(training.communicate()[0])
        rate = written / (time.monotonic() - began)
    return {
        "steps_a_second_alone": statistics.mean(one["wall"] for one in alone),
        "steps_a_second_beside": beside["wall"],
        "steps_a_cpu_second_alone": statistics.mean(one["cpu"] for one in alone),
        "steps_a_cpu_second_beside": beside["cpu"],
        "tokens_a_second_beside": rate,
    }


def _train(core: int) -> Mapping[str, float]:
    found: Mapping[str, float] = json.loads(_training(core).communicate()[0])
    return found


def _training(core: int) -> subprocess.Popen[str]:
    command = ["taskset", "-c", str(core), sys.executable, "-c", TRAINING, str(TRAINING_SECONDS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextmanager
def _serving(core: int) -> Iterator[Iterator[int]]:
    """The process that the API starts, on this core, writing without end; answers whether a token came."""
    ours, theirs = socket.socketpair()
    options = {"device": "cpu", "threads": 1, "nice": 19, "models": 1, "memory_bytes": 4 * 2**30}
    arguments = [str(theirs.fileno()), str(os.getpid()), json.dumps({**options, "max_unpacked_bytes": 2**34})]
    process = subprocess.Popen(
        ["taskset", "-c", str(core), sys.executable, "-m", "core.serving", *arguments],
        pass_fds=(theirs.fileno(),),
        env=learning_environment(os.environ),
    )
    theirs.close()
    lines = ours.makefile("rb")

    def say(**message: Any) -> None:
        ours.sendall(json.dumps(message).encode() + b"\n")

    def order(number: int) -> None:
        asked = {"messages": MESSAGES, "max_tokens": 1000, "sampling": {"temperature": 1.0}}
        say(type="generate", id=number, model="smollm2", asked=asked)

    def tokens() -> Iterator[int]:
        number = 1
        for line in lines:
            message = json.loads(line)
            if message["type"] == "done":
                number += 1
                order(number)
            yield message["type"] == "piece"

    order(1)
    if json.loads(lines.readline())["type"] != "wanted":
        raise AssertionError("it should want the model")
    say(type="placed", model="smollm2", place={"path": str(Path(smollm2()))})
    if json.loads(lines.readline())["type"] != "closed":
        raise AssertionError("it should have opened the model")
    ours.settimeout(None)
    try:
        yield tokens()
    finally:
        process.kill()
        process.wait()
        ours.close()


def main() -> None:
    """Print both."""
    rates = generation_rates()
    for name, found in rates.items():
        print(
            f"{name}: {statistics.median(found):.2f} tokens a CPU second ({min(found):.2f} to {max(found):.2f})",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak memory of this process: {peak:.0f} MiB", flush=True)
    for name, rate in training_rates().items():
        print(f"{name}: {rate:.2f}")


if __name__ == "__main__":
    main()
