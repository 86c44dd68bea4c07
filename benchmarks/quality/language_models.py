"""A language model trained here and by transformers' Trainer: the same weights to begin with, rows, steps and settings.

`python -m benchmarks.quality.language_models METHOD ours|trainer SEED` trains one of them and prints what it took;
`... METHOD shown STEPS` trains longer, and prints what a run shows people.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.language_models import CONTEXT, SETTINGS, held_out, prepared, train_here, train_with_trainer
from benchmarks.quality import Figure
from benchmarks.quality.training import Terminal
from core.catalog import read_spec
from core.execution import train
from core.training.run import Run

SEEDS = (0, 1, 2)
Result = dict[str, float]


def measure_one(method: str, side: str, seed: int) -> Result:
    """Train in this process, on one thread."""
    watch, artifacts = (train_here if side == "ours" else train_with_trainer)(method, seed=seed)
    peak = watch.peak_bytes / 2**20
    return {"seconds": watch.cpu[-1] - watch.cpu[0], "peak": peak, "loss": held_out(method, artifacts)["loss"]}


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
