"""Texts on a disk become rows of tokens in memory, beside datasets.map with the same tokenizer."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data import CACHE
from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.language_models import CONTEXT, documents, opened, prepared
from benchmarks.timed import Stopwatch

METHOD = "causal_language_model"
MIB = 2**20


def corpus(mebibytes: int) -> Path:
    """So many MiB of books as JSON Lines, a document a line, over and over from the beginning."""
    path = CACHE / f"books-{mebibytes}-mib.jsonl"
    if not path.exists():
        lines = [json.dumps({"text": text}) + "\n" for text in documents()]
        part = path.with_suffix(f".{os.getpid()}")
        with part.open("w", encoding="utf-8") as file:
            while file.tell() < mebibytes * MIB:
                file.writelines(lines)
        part.rename(path)
    return path


class Clock:
    """Wall and CPU seconds since it was made, those of processes that have ended among them."""

    def __init__(self) -> None:
        self.began, self.used = time.monotonic(), self._cpu()

    def _cpu(self) -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    def reading(self, path: Path, **quality: float) -> Reading:
        """Megabytes of the file a second."""
        seconds, megabytes = time.monotonic() - self.began, path.stat().st_size / 1e6
        cpu = self._cpu() - self.used
        return Reading(megabytes / seconds, quality={**quality, "mb_a_cpu_second": megabytes / cpu}, cpu_seconds=cpu)


def ours(mebibytes: int) -> Reading:
    """As a job reads them: which are held out, the tokens of all, rows without padding."""
    from core.catalog import read_spec
    from core.training.documents import read_split
    from core.training.run import Run

    path, model = corpus(mebibytes), opened(METHOD, prepared(METHOD) / "base")
    spec: Any = read_spec({"method": METHOD, "dataset": "file-1", "base": "model-1", "validation_fraction": None})
    run = Run(spec=spec, inputs={"dataset": path}, folder=Path(tempfile.mkdtemp()), reporter=Stopwatch())
    clock = Clock()
    rows = model.rows(read_split(spec, run).training())
    return clock.reading(path, tokens=len(rows.tokens), padding=rows.padding)


def datasets_map(mebibytes: int) -> Reading:
    """As run_clm.py of transformers' examples does: batches of documents, and a process for each core."""
    import datasets
    import transformers

    path = corpus(mebibytes)
    tokenizer = transformers.AutoTokenizer.from_pretrained(prepared(METHOD) / "base")
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    folder = tempfile.mkdtemp(prefix="datasets-")

    def tokenize(batch: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
        return {"input_ids": [[begin, *ids, end] for ids in found["input_ids"]]}

    def group(batch: dict[str, Any]) -> dict[str, Any]:
        joined = [token for ids in batch["input_ids"] for token in ids]
        whole = len(joined) // CONTEXT * CONTEXT
        return {"input_ids": [joined[start : start + CONTEXT] for start in range(0, whole, CONTEXT)]}

    datasets.disable_progress_bars()
    cores = len(os.sched_getaffinity(0))
    clock = Clock()
    read: Any = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=folder)
    tokens = read.map(tokenize, batched=True, num_proc=cores, remove_columns=["text"])
    rows = tokens.map(group, batched=True, num_proc=cores)
    found = clock.reading(path, tokens=len(rows) * CONTEXT, padding=0.0)
    shutil.rmtree(folder)
    return found


BENCHMARKS = [
    Benchmark(
        name="tokenizing",
        what="Books in JSON Lines become rows of 128 tokens, on all cores; the peak is of the largest process.",
        unit="MB/s",
        more_is_better=True,
        goal=Goal("ahead, in memory that stays flat", ratio=1.0),
        ours=Side("Weightworks", ours, ("tokenizers",)),
        peers=[Side("datasets.map", datasets_map, ("datasets", "tokenizers", "transformers"), is_peer=True)],
        size="MiB",
        sizes=[8, 24],
        full_sizes=[64, 256, 1024],
    )
]
