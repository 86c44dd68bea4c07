"""What opening a model for trying it out takes: `python -m benchmarks.opening`, on SmolLM2-135M-Instruct, one thread.

The GGUF file by ours and by transformers alone, and the same model as a folder of safetensors; and what the check of
training data opens of it. Each in a process of its own; CPU seconds, and apart from them those of the imports. All must
give the same logits, tokens and template.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.quality.fine_tuning_texts import smollm2
from core.checking import open_base
from core.serving.opening import LanguageModel, open_model

ROUNDS = 3
MESSAGES = [{"role": "user", "content": "Explain in a few sentences how a bicycle stays upright: thé, 12 345."}]
GGUF = {"gguf_file": "model.gguf"}


def ours(folder: Path) -> tuple[Any, Any]:
    """As the process that tries models out opens it."""
    model = open_model(folder, device="cpu")
    assert isinstance(model, LanguageModel)
    return model.network, model.tokenizer


def theirs(folder: Path) -> tuple[Any, Any]:
    """As transformers opens it by itself."""
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **GGUF)
    return network, transformers.AutoTokenizer.from_pretrained(folder, **GGUF)


def check(folder: Path) -> tuple[Any, Any]:
    """As the check of training data opens it: without weights."""
    with tempfile.TemporaryDirectory() as scratch:
        place = {"folder": f"{scratch}/kept", "archive": str(folder / "model.gguf"), "scratch": scratch}
        return None, open_base(place, max_unpacked_bytes=2**34).reading.tokenizer


WAYS: Mapping[str, Callable[[Path], tuple[Any, Any]]] = {"ours": ours, "theirs": theirs, "check": check}


def measure(way: str, folder: Path) -> dict[str, Any]:
    """Open it in this process; the seconds, and what tells whether it is the same."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    getattr(transformers, "LlamaForCausalLM")  # noqa: B009 - imports what every Llama needs
    began = time.process_time()
    network, tokenizer = WAYS[way](folder)
    ended = time.process_time()
    tokens = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    found = {"imports": began, "opening": ended - began, "tokens": tokens["input_ids"].tolist()}
    if network is not None:
        with torch.no_grad():
            logits = network(**tokens).logits.contiguous()
        found["logits"] = hashlib.sha256(logits.numpy().tobytes()).hexdigest()
    return found


def measured(way: str, folder: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.opening", way, str(folder)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return found


def main() -> None:
    """Print the seconds of each, by turns."""
    with tempfile.TemporaryDirectory() as folder:
        for thing in ours(smollm2()):
            thing.save_pretrained(folder)
        ways = {
            "GGUF, transformers": ("theirs", smollm2()),
            "GGUF, ours": ("ours", smollm2()),
            "safetensors, ours": ("ours", Path(folder)),
            "GGUF, configuration and tokenizer": ("check", smollm2()),
        }
        found = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                found[name].append(measured(*way))
    everything = [one for several in found.values() for one in several]
    for told in ("tokens", "logits"):
        if len({str(one[told]) for one in everything if told in one}) != 1:
            raise AssertionError(f"the {told} differ")
    for name, several in found.items():
        seconds = [one["opening"] for one in several]
        middle, imports = statistics.median(seconds), statistics.median(one["imports"] for one in several)
        print(f"{name}: {middle:.2f} CPU s ({min(seconds):.2f} to {max(seconds):.2f}), imports {imports:.2f}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
