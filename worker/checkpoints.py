"""Checkpoints on their way from a trainer's folder into storage and the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.jobs.checkpointing import Added, add_checkpoint
from core.jobs.events import NewEvent
from core.jobs.leases import Claim
from core.storage import Storage, checkpoint_key
from worker.errands import Answer, Errands


@dataclass(frozen=True)
class Kept:
    """A checkpoint in storage that the table does not have yet."""

    key: str
    step: int
    bytes: int
    sha256: str
    is_epoch: bool
    metrics: Mapping[str, float]


class CheckpointShelf:
    """Has checkpoints put into storage, and registers those that are there with the journal's next write."""

    def __init__(self, claim: Claim, storage: Storage, errands: Errands) -> None:
        self._claim = claim
        self._storage = storage
        self._errands = errands
        self._waiting: list[Kept] = []
        self._added: list[Added] = []

    def put(
        self, message: Mapping[str, Any], *, metrics: Mapping[str, float], then: Callable[[OSError | None], None]
    ) -> None:
        """Take a checkpoint out of the trainer's folder; `then` hears when it is in storage, or why it is not.

        One that the trainer has removed already, for it has written two more since, is passed over.
        """
        step = message["step"]
        key = checkpoint_key(self._claim.job_id, self._claim.fence, step)
        kept = Kept(key, step, message["bytes"], message["sha256"], message["is_epoch"], dict(metrics))
        put = partial(self._storage.link, Path(message["path"]), key)
        self._errands.send(put, then=partial(self._note, kept, then))

    def _note(self, kept: Kept, then: Callable[[OSError | None], None], answer: Answer[None]) -> None:
        try:
            answer()
        except FileNotFoundError:
            return
        except OSError as error:
            then(error)
            return
        self._waiting = [*(one for one in self._waiting if one.step != kept.step), kept]
        then(None)

    @property
    def is_empty(self) -> bool:
        """Whether the table has all of them."""
        return not self._waiting

    def register(self, session: Session) -> None:
        """Note what is new in the table. Raises LeaseLost."""
        self._added = [
            add_checkpoint(
                session,
                self._claim,
                key=one.key,
                step=one.step,
                size=one.bytes,
                sha256=one.sha256,
                metrics=one.metrics,
                is_epoch=one.is_epoch,
            )
            for one in self._waiting
        ]

    def registered(self) -> list[NewEvent]:
        """After the commit: remove what was superseded; answers the events that tell of the new ones."""
        for key in (key for added in self._added for key in added.superseded):
            self._errands.send(partial(self._storage.delete, key), then=_ignore)
        events = [
            NewEvent("checkpoint", data={"id": added.id, "step": one.step, "bytes": one.bytes, "sha256": one.sha256})
            for added, one in zip(self._added, self._waiting, strict=True)
        ]
        self._waiting, self._added = [], []
        return events


def _ignore(answer: Answer[None]) -> None:
    """What storage would not delete now has no row any more: the collector finds it."""
