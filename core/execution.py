"""One attempt at a job, from spec to artifacts; the worker's trainer and the command line both call it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from core.catalog import method_named
from core.training.artifacts import (
    ArtifactFile,
    describe_adapter,
    write_curves,
    write_json,
    write_manifest,
    write_model_card,
)
from core.training.run import Run

__all__ = ["Outcome", "train"]


@dataclass(frozen=True)
class Outcome:
    """What an attempt ended with."""

    metrics: Mapping[str, float]
    files: list[ArtifactFile]
    is_cancelled: bool


def train(run: Run, *, lineage: Mapping[str, Any]) -> Outcome:
    """Train as `run.spec` asks and write all artifacts; raises what the method raises, and Interrupted.

    A cancelled run writes what it learned so far. `lineage`: where data and models came from, for the model card.
    """
    method = method_named(run.spec.method)
    started = time.monotonic()
    metrics = dict(method.train(run.spec, run))
    run.flush_log()
    metrics["seconds"] = round(time.monotonic() - started, 3)
    spec = run.spec.model_dump(mode="json")
    write_json(run.artifacts / "metrics.json", metrics)
    write_json(run.artifacts / "training_spec.json", spec)
    if (adapter := run.artifacts / "adapter").exists():
        describe_adapter(adapter, origin=lineage.get("base", {}))
    write_curves(run.history, run.artifacts / "curves.png")
    write_model_card(
        run.artifacts / "README.md",
        title=run.spec.name or method.name,
        summary=method.summary,
        paper=method.paper,
        opens_with=method.opens_with,
        spec=spec,
        metrics=metrics,
        lineage={**lineage, "torch": torch.__version__},
    )
    return Outcome(metrics=metrics, files=write_manifest(run.artifacts), is_cancelled=run.is_cancelled)
