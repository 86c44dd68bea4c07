"""Trains a job's spec in this process, as a worker would, and answers its metrics and artifacts."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.catalog import read_spec
from core.execution import train
from core.training.checkpoint import CheckpointFile
from core.training.run import Run
from core.training.samples import Sample


class Terminal:
    """A reporter that prints validation metrics as they come."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Print what an evaluation found."""
        if any(name.startswith("valid_") for name in values):
            sys.stderr.write(f"{step} " + " ".join(f"{name}={value:.4g}" for name, value in values.items()) + "\n")

    def message(self, text: str, level: str) -> None:
        """Print a sentence."""
        sys.stderr.write(f"{text}\n")

    def progress(self, step: int, total: int | None) -> None:
        """Say nothing."""

    def checkpoint(self, file: CheckpointFile) -> None:
        """Say nothing."""

    def shown(self, sample: Sample) -> None:
        """Print where it lies."""
        sys.stderr.write(f"{sample.path}\n")


def trained(spec: Mapping[str, Any], folder: Path | None = None, **inputs: Path) -> tuple[dict[str, float], Path]:
    """The metrics of a run on one thread, and the folder of its artifacts."""
    torch.set_num_threads(1)
    folder = folder or Path(tempfile.mkdtemp(prefix="quality-"))
    files = {name: f"file-{name}" for name in inputs}
    run = Run(spec=read_spec({**spec, **files}), inputs=inputs, folder=folder, reporter=Terminal())
    train(run, lineage={"data": ", ".join(path.name for path in inputs.values())})
    return json.loads((run.artifacts / "metrics.json").read_text()), run.artifacts
