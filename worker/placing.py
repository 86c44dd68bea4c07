"""What a trainer starts from: looked up in the database, then brought to where the trainer can read it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import NotFound, WeightworksError
from core.jobs.checkpointing import latest_checkpoints
from core.jobs.database import AWAY
from core.jobs.inputs import Input, lineage_of, resolve_references
from core.jobs.leases import Claim
from core.placement import Saved, place_checkpoints, place_inputs
from core.settings import Settings
from core.storage import Storage, refusal_of
from worker.errands import Answer, Errands
from worker.journal import RETRY_SECONDS, Journal
from worker.stopping import NEVER


class Placing:
    """Has what a trainer wants brought to where it can read it, and tells it where that is.

    `lineage`: where that comes from, by the spec's field. `give_up`: ends the attempt, for this reason.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        errands: Errands,
        *,
        folder: Path,
        settings: Settings,
        tell: Callable[[Mapping[str, Any]], None],
        give_up: Callable[[WeightworksError], None],
    ) -> None:
        self.lineage: dict[str, Any] = {"job": journal.claim.job_id}
        self.due_at = NEVER
        self._journal = journal
        self._storage = storage
        self._errands = errands
        self._folder = folder
        self._settings = settings
        self._tell = tell
        self._give_up = give_up
        self._wanted: Mapping[str, Any] = {}

    def want(self, message: Mapping[str, Any]) -> None:
        """Note what the trainer wants, which is brought as soon as the database can tell where it is."""
        self._wanted, self.due_at = message, 0.0

    def act(self) -> None:
        """Look up what is wanted, if that is due, and have it brought."""
        if time.monotonic() < self.due_at:
            return
        try:
            needs = look_up(self._journal.claim, self._wanted, self._journal)
        except AWAY:
            self.due_at = time.monotonic() + RETRY_SECONDS
        except NotFound as error:
            self.due_at = NEVER
            self._give_up(error)
        else:
            self.due_at = NEVER
            self.lineage.update(lineage_of(needs.inputs))
            self._errands.send(partial(bring, needs, storage=self._storage, folder=self._folder), then=self._order)

    def _order(self, answer: Answer[dict[str, Any]]) -> None:
        try:
            places = answer()
        except NotFound as error:
            self._give_up(error)
        except OSError as error:
            self._give_up(refusal_of(error) or WeightworksError(f"cannot place the inputs: {error}"))
        else:
            told = {"folder": str(self._folder), "max_unpacked_bytes": self._settings.max_unpacked_bytes}
            self._tell({"type": "order", **places, **told, "lineage": self.lineage})


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
