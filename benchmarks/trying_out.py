"""Models that are tried out: tokens a second beside transformers, of one answer and of several at once, and what a
training loses to them.

`python -m benchmarks.trying_out` prints all of it, on SmolLM2-135M-Instruct and one thread each; with `together` or
`training`, only the second or the third. CPU seconds are counted, for the machine may have other work.
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
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

from benchmarks.quality.fine_tuning_texts import smollm2
from core.environment import learning_environment
from core.serving.generation import Asked, generate
from core.serving.opening import LanguageModel, open_model
from core.serving.sampling import Sampling

TOKENS = 64
ROUNDS = 3
TRAINING_SECONDS = 10.0  # of the CPU
LOWEST_PRIORITY = 19
MESSAGES = [{"role": "user", "content": "Explain in a few sentences how a bicycle stays upright."}]
QUESTIONS = (
    MESSAGES[0]["content"],
    "Write a poem about the sea.",
    "How do I bake bread?",
    "Tell me a story about a dragon who is afraid of fire.",
)
NAMES = ("weightworks", "transformers")


def generation_rates(model: LanguageModel) -> dict[str, list[float]]:
    """Tokens a CPU second of greedy answers, prompt included, by turns; the two must say the same."""
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


def together_rates(model: LanguageModel) -> dict[str, list[float]]:
    """Tokens a CPU second of as many answers as there are questions, each in turn and one after the other.

    They must say the same, prompts are included.
    """
    found: dict[str, list[float]] = {"at once": [], "one after the other": []}
    for _ in range(ROUNDS):
        began = time.process_time()
        together = _answers(model, QUESTIONS)
        between = time.process_time()
        alone = [_answers(model, [question])[0] for question in QUESTIONS]
        ended = time.process_time()
        if together != alone:
            raise AssertionError("answers that are written at once differ from those that are written alone")
        count = sum(len(answer) for answer in alone)
        found["at once"].append(count / (between - began))
        found["one after the other"].append(count / (ended - between))
    return found


def _answers(model: LanguageModel, questions: Sequence[str]) -> list[list[str]]:
    """The pieces of the answers to all of them, a step of each by turns."""
    sampling = Sampling(temperature=0.0)
    answers: list[list[str]] = [[] for _ in questions]
    turns = deque(
        (
            answer,
            generate(
                model,
                Asked(messages=[{"role": "user", "content": question}], max_tokens=TOKENS, sampling=sampling),
            ),
        )
        for question, answer in zip(questions, answers, strict=True)
    )
    while turns:
        answer, steps = turns.popleft()
        if (said := next(steps, None)) is not None:
            answer += [one["text"] for one in said if one["type"] == "piece"]
            turns.append((answer, steps))
    return answers


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
began, steps = time.process_time(), 0
while time.process_time() - began < float(sys.argv[1]):
    step()
    steps += 1
ended = time.process_time()
print(json.dumps({"steps": steps, "cpu_seconds": ended - began, "all": ended}))
"""


def training_rates(folder: Path) -> dict[str, float]:
    """What a training does alone, and while answers are written beside it on the same core, and who has the core."""
    core = max(os.sched_getaffinity(0))
    alone = _finished(_training(core))
    with _serving(core, folder) as (process, write):
        next(write)
        before, training, written = sum(process.cpu_times()[:2]), _training(core), 0
        while training.poll() is None:
            written += next(write)
        beside, serving = _finished(training), sum(process.cpu_times()[:2]) - before
    return {
        "CPU seconds until a process that has just started has written a token": before,
        "steps a CPU second, alone": alone["steps"] / alone["cpu_seconds"],
        "steps a CPU second, beside": beside["steps"] / beside["cpu_seconds"],
        "share of their core that the training has (%)": 100 * beside["all"] / (beside["all"] + serving),
        "tokens that were written meanwhile": written,
    }


def _finished(training: subprocess.Popen[str]) -> Mapping[str, float]:
    found: Mapping[str, float] = json.loads(training.communicate()[0])
    return found


def _training(core: int) -> subprocess.Popen[str]:
    command = ["taskset", "-c", str(core), sys.executable, "-c", TRAINING, str(TRAINING_SECONDS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextmanager
def _serving(core: int, folder: Path) -> Iterator[tuple[psutil.Process, Iterator[int]]]:
    """The process that the API starts, on this core, writing without end; each look waits for a token."""
    ours, theirs = socket.socketpair()
    options = {"device": "cpu", "threads": 1, "nice": 0, "models": 1, "memory_bytes": 4 * 2**30}
    arguments = [str(theirs.fileno()), str(os.getpid()), json.dumps({**options, "max_unpacked_bytes": 2**34})]
    process = subprocess.Popen(
        ["taskset", "-c", str(core), sys.executable, "-m", "core.serving", *arguments],
        pass_fds=(theirs.fileno(),),
        env=learning_environment(os.environ),
    )
    theirs.close()

    def say(**message: Any) -> None:
        ours.sendall(json.dumps(message).encode() + b"\n")

    def order(number: int) -> None:
        asked = {"messages": MESSAGES, "max_tokens": 1000, "sampling": {"temperature": 1.0}}
        say(type="generate", id=number, model="smollm2", project="ours", asked=asked)

    def tokens() -> Iterator[int]:
        number = 1
        order(number)
        for line in ours.makefile("rb"):
            message = json.loads(line)
            if message["type"] == "wanted":
                say(type="placed", model="smollm2", place={"path": str(folder)})
            elif message["type"] == "closed":
                os.setpriority(os.PRIO_PROCESS, process.pid, LOWEST_PRIORITY)  # as it has from the start in service
            elif message["type"] == "done":
                number += 1
                order(number)
            elif message["type"] == "piece":
                yield 1

    try:
        yield psutil.Process(process.pid), tokens()
    finally:
        process.kill()
        process.wait()
        ours.close()


def tell_rates(rates: Mapping[str, Sequence[float]]) -> None:
    """Print the middle one of each, and how far they went."""
    for name, found in rates.items():
        middle = statistics.median(found)
        print(f"{name}: {middle:.2f} tokens a CPU second ({min(found):.2f} to {max(found):.2f})", flush=True)


def main() -> None:
    """Print what is asked for."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = open_model(smollm2(), device="cpu")
    if not isinstance(model, LanguageModel):
        raise TypeError("SmolLM2 is a language model")
    if not sys.argv[1:]:
        tell_rates(generation_rates(model))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"peak memory of this process: {peak:.0f} MiB", flush=True)
    if "training" not in sys.argv[1:]:
        tell_rates({f"{len(QUESTIONS)} answers {how}": rates for how, rates in together_rates(model).items()})
    if "together" not in sys.argv[1:]:
        for name, rate in training_rates(smollm2()).items():
            print(f"{name}: {rate:.2f}")


if __name__ == "__main__":
    main()
