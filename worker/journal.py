"""All that a supervisor writes about the job it holds: its events, numbered; its lease, renewed; its end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from core.jobs.database import AWAY, Database
from core.jobs.events import NewEvent, added_events, as_row, insert_events, list_events
from core.jobs.leases import Claim, renew_lease
from core.jobs.models.jobs import Event, Job
from core.jobs.status import Asked
from core.progress import Publisher

T = TypeVar("T")

RETRY_SECONDS = 0.5
GATHER_SECONDS = 0.05  # between two messages to Redis

log = logging.getLogger(__name__)


class Journal:
    """Numbers a claim's events, publishes them to Redis at once, and writes them to SQL in batches.

    Every batch renews the lease in the same transaction. `lease_ends` is by this machine's monotonic clock, counted
    from before the renewal was sent: it never outlasts the lease in the table.
    """

    def __init__(
        self, claim: Claim, database: Database, publisher: Publisher, *, lease_seconds: float, lease_ends: float
    ) -> None:
        self.claim = claim
        self.lease_ends = lease_ends
        self.progress: dict[str, Any] | None = None
        self.metrics: dict[str, float] = {}
        self._database = database
        self._publisher = publisher
        self._lease_seconds = lease_seconds
        self._last_seq = 1  # claim_job wrote the first
        self._published_at = -math.inf
        self._unpublished: list[Event] = []
        self._unwritten: list[Event] = []
        self._clock_offset = time.time() - time.monotonic()

    def open(self) -> None:
        """Publish what the claim wrote, take the database's time, and bring events of earlier fences into SQL.

        A lost worker's last events may be in Redis only.
        """
        if self.claim.fence > 1:
            earlier = [
                event for event in self._publisher.published(self.claim.job_id) if event.fence < self.claim.fence
            ]
            with self._database.write() as session:
                insert_events(session, earlier)
        with self._database.read() as session:
            started = list_events(session, self.claim.job_id, fence=self.claim.fence)
            self.metrics = {**session.get_one(Job, self.claim.job_id).metrics, **self.metrics}
        self._clock_offset = started[0].created_at - time.monotonic()
        self._publisher.publish(started)

    def add(self, event: NewEvent) -> None:
        """Put an event at the end of the job's stream."""
        self._last_seq += 1
        storable = replace(event, message=_storable(event.message))
        row = as_row(self.claim.job_id, self.claim.fence, self._last_seq, storable, now=self.now())
        self._unpublished.append(row)
        self._unwritten.append(row)

    def now(self) -> float:
        """Unix seconds by the database's clock, as far as can be told without asking it."""
        return self._clock_offset + time.monotonic()

    @property
    def publish_at(self) -> float:
        """When what was added is due in Redis: at once, unless something was sent a moment ago."""
        return self._published_at + GATHER_SECONDS if self._unpublished else math.inf

    def publish(self) -> None:
        """Send to Redis what is due; nothing while the lease may be someone else's."""
        now = time.monotonic()
        if now < self.publish_at:
            return
        if now < self.lease_ends:
            self._publisher.publish(self._unpublished)
        self._unpublished, self._published_at = [], now

    def write(self, change: Callable[[Session], Any] | None = None) -> Asked | None:
        """Renew the lease, write what was added, and make `change`, all or nothing.

        Answers what is asked of the job. Raises LeaseLost, or one of AWAY.
        """
        asked_at, events = time.monotonic(), list(self._unwritten)
        with self._database.write() as session:
            asked = self._renew(session, events)
            if change is not None:
                change(session)
        self._unwritten = self._unwritten[len(events) :]
        self.lease_ends = asked_at + self._lease_seconds
        return asked

    def close(self, end: Callable[[Session], T]) -> T:
        """Write what was added and how far the job came, and its end after it, all or nothing; then tell of it.

        Raises LeaseLost, or one of AWAY.
        """
        with self._database.write() as session:
            self._renew(session, self._unwritten)
            result = end(session)
        self._publisher.publish([*self._unpublished, *added_events(session)])
        self._unpublished, self._unwritten = [], []
        return result

    def _renew(self, session: Session, events: Sequence[Event]) -> Asked | None:
        asked = renew_lease(
            session, self.claim, lease_seconds=self._lease_seconds, progress=self.progress, metrics=self.metrics
        )
        insert_events(session, events)
        return asked

    def insist(self, action: Callable[[], T], *, is_over: Callable[[], bool] = lambda: True) -> T:
        """Do what may find the database away, again and again, until the lease has ended and `is_over`.

        Raises what `action` raises.
        """
        while True:
            try:
                return action()
            except AWAY as error:
                if time.monotonic() > self.lease_ends and is_over():
                    raise
                log.warning("job %s: the database is away: %s", self.claim.job_id, first_line(error))
                time.sleep(RETRY_SECONDS)

    def read(self) -> AbstractContextManager[Session]:
        """A session for reading. Raises one of AWAY."""
        return self._database.read()


def first_line(error: BaseException) -> str:
    """An error in one line; SQLAlchemy's go on with the statement."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _storable(text: str) -> str:
    """Text as every database takes it: no NUL, no lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
