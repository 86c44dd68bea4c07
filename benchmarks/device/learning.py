"""How fast methods learn on a device, each by a job through the local runner."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.device.flops import flops_per_token, peak_of
from benchmarks.steps import Losses
from core.catalog import read_spec
from core.execution import train
from core.training.run import Control, Request, Run

WARM = 10  # steps before the clock is read
WORDS, VOCABULARY = 3_000_000, 60_000
DOCUMENT_WORDS = 2000

Numbers = dict[str, float]


class DeviceClock(Control):
    """Asks for nothing; reads the clock behind WARM steps and behind the last but one, when the device is done."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last
        self.began = self.ended = 0.0

    def asked_at(self, step: int) -> Request | None:
        """Nothing, ever."""
        if step in (WARM, self.last):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.began, self.ended = (time.monotonic(), 0.0) if step == WARM else (self.began, time.monotonic())
        return None


def steps_a_second(spec: Mapping[str, Any], dataset: Path, folder: Path, *, steps: int) -> tuple[float, Run]:
    """Train WARM + `steps` + 1 steps; answers the rate of those between, and the run."""
    last = WARM + steps
    clock, losses = DeviceClock(last), Losses()
    whole = read_spec({**spec, "dataset": "file-local", "steps": last + 1, "checkpoint_every": 10**9})
    run = Run(whole, {"dataset": dataset}, folder, losses, control=clock)  # type: ignore[arg-type]
    train(run, lineage={})
    return steps / (clock.ended - clock.began), run


@dataclass(frozen=True)
class Decoder:
    """A decoder to train: its spec's architecture, the tokens of a row, the rows of a step, the steps."""

    architecture: Mapping[str, Any]
    context_length: int
    rows: int
    steps: int
    vocabulary: int = 50_304
    words: int = WORDS
    compile: bool = False

    def measure(self, device: str, folder: Path) -> Numbers:
        """Tokens a second, and model FLOPs utilisation where the device's peak is known."""
        text = write_text(folder / "text.jsonl", words=self.words)
        spec = {
            "method": "causal_language_model",
            "architecture": dict(self.architecture),
            "vocabulary": self.vocabulary,
            "context_length": self.context_length,
            "batch_size": self.rows,
            "gradient_clip": 1.0,
            "sample_length": 0,
            "compile": self.compile,
            "device": device,
        }
        rate, run = steps_a_second(spec, text, folder, steps=self.steps)
        found = {"tokens_per_second": rate * self.rows * self.context_length, "steps_per_second": rate}
        return found | self._utilisation(run, found["tokens_per_second"]) | memory()

    def _utilisation(self, run: Run, tokens_per_second: float) -> Numbers:
        from transformers import AutoModelForCausalLM

        network = AutoModelForCausalLM.from_pretrained(run.artifacts)
        needed = flops_per_token(network, context_length=self.context_length)
        found = {
            "parameters": float(sum(each.numel() for each in network.parameters())),
            "flops_per_token": needed,
            "flops_per_second": needed * tokens_per_second,
        }
        peak = peak_of(torch.cuda.get_device_name()) if run.device.type == "cuda" else None
        return found if peak is None else {**found, "utilisation": found["flops_per_second"] / peak}


@dataclass(frozen=True)
class Images:
    """A method that learns from random images: its spec, and the images' number, side and channels."""

    spec: Mapping[str, Any]
    steps: int
    count: int = 20_000
    side: int = 32
    channels: int = 3

    def measure(self, device: str, folder: Path) -> Numbers:
        """Steps and images a second."""
        random = np.random.default_rng(0)
        shape = (self.count, self.side, self.side, self.channels)
        np.savez(folder / "images.npz", x=random.integers(0, 256, shape, dtype=np.uint8))
        rate, run = steps_a_second({**self.spec, "device": device}, folder / "images.npz", folder, steps=self.steps)
        images = rate * float(run.spec.batch_size)  # type: ignore[attr-defined]
        return {"steps_per_second": rate, "images_per_second": images} | memory()


@dataclass(frozen=True)
class Words:
    """Word vectors by skip-gram."""

    words: int = WORDS
    batch_size: int = 16_384

    def measure(self, device: str, folder: Path) -> Numbers:
        """Words a second, of one pass."""
        text = write_text(folder / "text.jsonl", words=self.words)
        spec = {"method": "word2vec", "epochs": 1, "batch_size": self.batch_size, "device": device}
        run = Run(read_spec({**spec, "dataset": "file-local"}), {"dataset": text}, folder, Losses())  # type: ignore[arg-type]
        metrics = train(run, lineage={}).metrics
        return {name: metrics[name] for name in ("words_per_second", "valid_loss")} | memory()


def memory() -> Numbers:
    """The most that was held on the device."""
    return {"peak_bytes": float(torch.cuda.max_memory_allocated())} if torch.cuda.is_available() else {}


def write_text(path: Path, *, words: int) -> Path:
    """Documents of random words, as often as Zipf's law has it, as JSON Lines: nothing has to be fetched for them."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    lengths = random.integers(2, 11, VOCABULARY)
    known = ["".join(random.choice(letters, length)) for length in lengths]
    shares = 1 / np.arange(1, VOCABULARY + 1)
    drawn = random.choice(VOCABULARY, words, p=shares / shares.sum())
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, words, DOCUMENT_WORDS):
            text = " ".join(known[number] for number in drawn[start : start + DOCUMENT_WORDS])
            file.write(json.dumps({"text": text}) + "\n")
    return path


GPT2 = {"architecture": "gpt2", "layers": 12, "hidden_size": 768, "heads": 12, "dropout": 0.0}
LLAMA = {"architecture": "llama", "layers": 20, "hidden_size": 2048, "heads": 16}
SIMCLR = {"method": "simclr", "batch_size": 512}
MEASURED: Mapping[str, Decoder | Images | Words] = {
    "decoder of 124M": Decoder(GPT2, context_length=1024, rows=64, steps=40),
    "decoder of 124M, compiled": Decoder(GPT2, context_length=1024, rows=64, steps=40, compile=True),
    "decoder of 1B": Decoder(LLAMA, context_length=2048, rows=16, steps=20),
    "decoder of 1B, compiled": Decoder(LLAMA, context_length=2048, rows=16, steps=20, compile=True),
    "simclr": Images(SIMCLR, steps=100),
    "gan, relativistic": Images({"method": "gan", "batch_size": 256}, steps=200),
    "autoencoder": Images({"method": "autoencoder", "batch_size": 512}, steps=300, side=28, channels=1),
    "word2vec": Words(),
}


def measure(name: str, device: str) -> Numbers:
    """One of MEASURED, in a folder that is gone afterwards."""
    run: Callable[[str, Path], Numbers] = MEASURED[name].measure
    with tempfile.TemporaryDirectory(prefix="device-") as folder:
        return run(device, Path(folder))
