"""What a trainer starts from: looked up in the database, then brought to where the trainer can read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.jobs.checkpointing import latest_checkpoints
from core.jobs.inputs import Input, resolve_references
from core.jobs.leases import Claim
from core.placement import Saved, place_checkpoints, place_inputs
from core.storage import Storage
from worker.journal import Journal


@dataclass(frozen=True)
class Needs:
    """An attempt's inputs by field, and its job's checkpoints, the furthest first."""

    inputs: Mapping[str, Input]
    checkpoints: Sequence[Saved]


def look_up(claim: Claim, wanted: Mapping[str, Any], journal: Journal) -> Needs:
    """What the spec names. Raises NotFound, naming the field, for what was deleted, and one of AWAY."""
    files, models = wanted["files"], wanted["models"]
    with journal.read() as session:
        inputs = resolve_references(
            session, project_id=claim.project_id, job_id=claim.job_id, files=files, models=models
        )
        checkpoints = [Saved(row.key, row.step, row.sha256) for row in latest_checkpoints(session, claim.job_id)]
    return Needs(inputs, checkpoints)


def bring(needs: Needs, *, storage: Storage, folder: Path) -> dict[str, Any]:
    """Paths of all of it, below an attempt's folder or in storage: takes as long as the network needs for the data."""
    return {
        "inputs": place_inputs(needs.inputs, storage=storage, folder=folder / "inputs"),
        "checkpoints": place_checkpoints(needs.checkpoints, storage=storage, folder=folder / "resume"),
    }
