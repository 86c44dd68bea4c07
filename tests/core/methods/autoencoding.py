"""Autoencoders trained here and now, and the specs for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contract import Recorder, run_example

from core import load_model
from core.catalog import read_spec
from core.methods.autoencoder import AutoencoderSpec
from core.registry import Example


def train_on(folder: Path, dataset: Path, *, validation: Path | None = None, **spec: Any) -> tuple[Any, dict[str, Any]]:
    inputs = {"dataset": dataset}
    if validation is not None:
        inputs["validation"], spec["validation"] = validation, "file-validation"
    recorder = Recorder()
    example = Example(spec={"method": "autoencoder", **spec}, write_dataset=lambda path: None)
    run_example(example, folder, inputs=inputs, recorder=recorder)
    metrics = json.loads((folder / "artifacts" / "metrics.json").read_text())
    return load_model(folder / "artifacts"), {**metrics, "seen": recorder.metrics_seen, "said": recorder.messages}


def specification(**settings: Any) -> AutoencoderSpec:
    return read_spec({"method": "autoencoder", "dataset": "file-1", **settings})  # type: ignore[return-value]
