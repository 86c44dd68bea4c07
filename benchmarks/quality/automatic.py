"""What `auto` reaches on held-out data, beside a quarter to four times its numbers, one of them at a time."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from api.fine_tuning.automatic import DataSize
from api.fine_tuning.requests import FineTuningRequest
from api.fine_tuning.translating import Translated, translate
from benchmarks.data import CACHE
from benchmarks.quality import Figure
from benchmarks.quality.fine_tuning_texts import apart, instructions, pairs, smollm2
from benchmarks.quality.training import Terminal
from core.checking import check, open_base
from core.jobs.models.files import File
from core.methods import fine_tuning
from core.networks.language_modeling import vocabulary_head
from core.networks.pretrained import open_pretrained, open_tokenizer
from core.tasks import open_task
from core.tasks.language_model import CAUSAL
from core.training.run import Run

FACTORS = {  # auto's own first: what is cut short has told the most
    "learning_rate_multiplier": (1, 4, 0.25, 2, 0.5),
    "n_epochs": (1, 2, 0.5, 0.25),
    "batch_size": (1, 4, 2, 0.5),
}
SEEDS = (0, 1, 2)  # the sweep is of the first
SOURCE, SHORT = "alpaca_en_demo", 120  # characters of question and answer together
NATIVE = {"precision": "bfloat16", "epoch_checkpoints": False}
Given = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Case:
    """Data to learn from and to judge by, for a method."""

    name: str
    method: str
    learned: Path
    held_out: Path
    size: DataSize

    def asked(self, given: Given = (), *, seed: int = 0, **more: Any) -> Translated:
        """The job that a client asks for by these hyperparameters, `auto` for all others."""
        quiet = {"samples": 0} if self.method == "supervised" else {}
        method = {"type": self.method, self.method: {"hyperparameters": dict(given)}}
        files = {"training_file": "file-learned", "model": "base"}
        request = FineTuningRequest(**files, method=method, **NATIVE, **quiet, **more)
        return translate(request, File(id="file-base"), seed=seed, size=self.size)

    @property
    def auto(self) -> dict[str, Any]:
        """The number for each `auto`."""
        found: dict[str, Any] = self.asked().request["method"][self.method]["hyperparameters"]
        return {name: found[name] for name in FACTORS}


def measure(names: Sequence[str] = ()) -> list[Figure]:
    """All figures of these cases, or of all."""
    found = []
    for name in names or CASES:
        case = CASES[name]()
        base_loss = judge(case).run.history.series["valid_loss"][0][1]
        sys.stderr.write(f"{case.name}: {case.size}, auto {case.auto}, base {base_loss:.3f}\n")
        found += [swept(case, hyperparameter) for hyperparameter in FACTORS]
        found += [by_seeds(case)] if case.method == "dpo" else []
    return found


def instruct(count: int) -> Case:
    """Short English instructions of all kinds, and their answers: what is longer would take hours on a CPU."""
    texts = [("".join(message["content"] for message in each["messages"]), each) for each in instructions(SOURCE)]
    short = [each for text, each in texts if len(text) <= SHORT and text.isascii()]
    return written(f"{count} instructions", "supervised", short, learned=count, held_out=48)


def preferences() -> Case:
    """Pairs of answers."""
    return written("51 pairs of answers", "dpo", pairs("dpo_en_demo"), learned=51, held_out=36)


CASES = {
    "fewest": partial(instruct, 10),
    "few": partial(instruct, 16),
    "more": partial(instruct, 48),
    "preferences": preferences,
}


def written(name: str, method: str, examples: list[Any], *, learned: int, held_out: int) -> Case:
    """The case with its files, and its size as the service finds it before it writes a job."""
    folder = Path(tempfile.mkdtemp(prefix="automatic-"))
    parts = dict(zip(("learned", "held_out"), apart(examples, held_out=held_out, train=learned), strict=True))
    for part, chosen in parts.items():
        (folder / part).write_text("".join(json.dumps(each) + "\n" for each in chosen), encoding="utf-8")
    case = Case(name, method, folder / "learned", folder / "held_out", DataSize(learned))
    reading, width = open_base({"folder": base()}, max_unpacked_bytes=0)
    found = check(case.asked().spec, {"dataset": case.learned}, reading, examples=learned, seconds=60)
    return Case(name, method, case.learned, case.held_out, DataSize(learned, found.tokens, width=width))


@cache
def base() -> Path:
    """SmolLM2-135M-Instruct as a folder of safetensors: every run opens it, and a GGUF takes long to open."""
    folder = CACHE / "smollm2-opened"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            network: Any = open_pretrained(smollm2(), CAUSAL, param="base").network
            network.save_pretrained(Path(scratch) / "base")
            open_tokenizer(smollm2(), network, param="base").tokenizer.save_pretrained(Path(scratch) / "base")
            (Path(scratch) / "base").rename(folder)
    return folder


def swept(case: Case, name: str) -> Figure:
    """What `auto` reaches, and the best of one hyperparameter's sweep."""
    auto, found = case.auto[name], losses(case, name)
    best = best_of(found)
    return Figure(
        f"{case.name}: held-out loss by `{name}`",
        "auto's is near the best",
        f"auto ({auto:g}): {found[auto]:.3f}; best ({best:g}): {found[best]:.3f}",
        ", ".join(f"{value:g}: {loss:.3f}" for value, loss in sorted(found.items())),
    )


def by_seeds(case: Case) -> Figure:
    """Loss and accuracy of `auto`, and of the best learning rate of the sweep, for several seeds."""
    name, told = "learning_rate_multiplier", []
    for value in (case.auto[name], best_of(losses(case, name))):
        found = [reached(case, given(case, name, value), seed=seed) for seed in SEEDS]
        loss = mean(each["loss"] for each in found)
        accuracies = [each["reward_accuracy"] for each in found]
        lowest, highest = min(accuracies), max(accuracies)
        told.append(f"{value:g}: {loss:.3f}, {mean(accuracies):.1%} ({lowest:.1%} to {highest:.1%})")
    what = f"{case.name}: held-out loss and accuracy, means of {len(SEEDS)} seeds, by `{name}`"
    return Figure(what, "auto's is near the best", "; ".join(told), "auto, and the best of the sweep")


@cache
def losses(case: Case, name: str) -> Mapping[float, float]:
    """The held-out loss of each value that the sweep tries; where the largest rate is the best, it goes on by fours."""
    scaled = (case.auto[name] * factor for factor in FACTORS[name])
    is_rate = name == "learning_rate_multiplier"
    values = list(dict.fromkeys(value if is_rate else max(1, round(value)) for value in scaled))
    found = {value: reached(case, given(case, name, value))["loss"] for value in values}
    while is_rate and best_of(found) == max(found):
        value = 4 * max(found)
        found[value] = reached(case, given(case, name, value))["loss"]
    return found


def best_of(found: Mapping[float, float]) -> float:
    """The value of the lowest loss."""
    return min(found, key=lambda value: found[value])


def given(case: Case, name: str, value: float) -> Given:
    """All hyperparameters with one changed; the rate follows the batch, as it does where a client gives a batch."""
    chosen = {**case.auto, name: value}
    if name == "batch_size" and value != case.auto[name]:
        del chosen["learning_rate_multiplier"]
    return tuple(chosen.items())


@cache
def reached(case: Case, chosen: Given, *, seed: int = SEEDS[0]) -> Mapping[str, float]:
    """What a job of these hyperparameters reaches on what is held out."""
    began = time.process_time()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="automatic-") as folder:
        inputs = {"dataset": case.learned, "base": base()}
        spec = case.asked(chosen, seed=seed).spec
        run = Run(spec=spec, inputs=inputs, folder=Path(folder), reporter=Terminal())
        fine_tuning.train(spec, run)
        task = judge(case)
        task.network = open_pretrained(run.artifacts, CAUSAL, param="base").network
    task.vocabulary_head = vocabulary_head(task.network)
    found: Mapping[str, float] = task.evaluate()
    sys.stderr.write(f"{dict(chosen)}, seed {seed}: {found}, {time.process_time() - began:.0f} CPU s\n")
    return found


@cache
def judge(case: Case) -> Any:
    """The service's own evaluation of what is held out, opened on the base: it knows what that makes of pairs."""
    spec = case.asked(validation_file="file-held-out").spec
    folder = Path(tempfile.mkdtemp(prefix="automatic-"))
    (folder / "one").write_text(case.held_out.read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    inputs = {"dataset": folder / "one", "validation": case.held_out, "base": base()}
    return open_task(spec, Run(spec=spec, inputs=inputs, folder=folder, reporter=Terminal()))


if __name__ == "__main__":
    for figure in measure(sys.argv[1:]):
        sys.stdout.write(f"{figure}\n")
