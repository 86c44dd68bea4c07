"""Submissions without an Idempotency-Key, found again when the client that heard no answer sends them once more.

Such a client says how often it has tried (`x-stainless-retry-count`). What it sent first may still be on its way, or
come only after its repeat has made the job: either may be the one that makes it, and the other then finds it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from core.jobs.database import read_clock
from core.jobs.models.submissions import Submission

REPEAT_SECONDS = 600.0  # within which a repeat is one


@dataclass(frozen=True)
class Sent:
    """A submission as it came: whose, what, the how-manieth try, and when it arrived by the monotonic clock."""

    project_id: str
    key_id: str
    body_sha256: str
    retry_count: int
    arrived: float


class Tries:
    """What other tries of some submissions made, before the transaction or in it.

    `now`: by the database's clock. Until the transaction ends, other tries wait; SQLite has but one writer anyway.
    """

    def __init__(self, session: Session, sent: Sequence[Sent]) -> None:
        self._session = session
        _have_others_wait(session, sent)
        self._began = time.monotonic()
        self.now = read_clock(session)
        self._last = {(row.key_id, row.body_sha256): row for row in self._earlier(sent)} if sent else {}
        self._new: list[Submission] = []

    def _earlier(self, sent: Sequence[Sent]) -> Sequence[Submission]:
        query = select(Submission).where(
            Submission.key_id.in_({one.key_id for one in sent}),
            Submission.body_sha256.in_({one.body_sha256 for one in sent}),
            Submission.created_at > self.now - REPEAT_SECONDS,
        )
        return self._session.scalars(query.order_by(Submission.created_at)).all()

    def find(self, sent: Sent) -> str | None:
        """What another try of this submission made; None where this one is to make it."""
        found = self._last.get((sent.key_id, sent.body_sha256))
        if found is None:
            return None
        if sent.retry_count:
            return found.resource_id
        waited = self._began - sent.arrived
        if found.retry_count and found.created_at >= self.now - waited:
            found.retry_count = 0  # one first try has found what its repeat made: another is another submission
            return found.resource_id
        return None

    def remember(self, sent: Sent, resource_id: str) -> None:
        """Note what this submission made; `write` writes it."""
        row = Submission(
            resource_id=resource_id,
            project_id=sent.project_id,
            key_id=sent.key_id,
            body_sha256=sent.body_sha256,
            retry_count=sent.retry_count,
            created_at=self.now,
        )
        self._last[sent.key_id, sent.body_sha256] = row
        self._new.append(row)

    def write(self) -> None:
        """Write what was noted, at the transaction's end: a first try that came meanwhile came before this."""
        if self._new:
            written_at = read_clock(self._session)
            for row in self._new:
                row.created_at = written_at
            self._session.add_all(self._new)
        self._session.flush()


def _have_others_wait(session: Session, sent: Sequence[Sent]) -> None:
    """In order, so that two transactions do not wait for each other."""
    if sent and session.get_bind().dialect.name == "postgresql":
        locks = sorted({int(one.body_sha256[:15], 16) for one in sent})
        each = func.unnest(cast(locks, ARRAY(BigInteger))).column_valued("lock")
        session.execute(select(func.pg_advisory_xact_lock(each)))
