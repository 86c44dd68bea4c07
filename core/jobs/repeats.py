"""Submissions without an Idempotency-Key, found again when the client that heard no answer sends them once more.

Such a client says how often it has tried (`x-stainless-retry-count`). What it sent first may still be on its way, or
come only after its repeat has made the job: either may be the one that makes it, and the other then finds it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.jobs.database import read_clock
from core.jobs.models import Submission

REPEAT_SECONDS = 600.0  # within which a repeat is one


@dataclass(frozen=True)
class Sent:
    """A submission as it came: whose, what, the how-manieth try, and when it arrived by the monotonic clock."""

    project_id: str
    key_id: str
    body_sha256: str
    retry_count: int
    arrived: float


def find_sent(session: Session, sent: Sent) -> str | None:
    """What another try of this submission made; None where this one is to make it.

    Until the transaction ends, other tries wait. SQLite has but one writer anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        lock = int(sent.body_sha256[:15], 16)
        session.execute(select(func.pg_advisory_xact_lock(lock)))
    waited = time.monotonic() - sent.arrived
    now = read_clock(session)
    query = select(Submission).where(
        Submission.key_id == sent.key_id,
        Submission.body_sha256 == sent.body_sha256,
        Submission.created_at > now - REPEAT_SECONDS,
    )
    found = session.scalar(query.order_by(Submission.created_at.desc()).limit(1))
    if found is None:
        return None
    if sent.retry_count:
        return found.resource_id
    if found.retry_count and found.created_at >= now - waited:
        found.retry_count = 0  # one first try has found what its repeat made: another is another submission
        session.flush()
        return found.resource_id
    return None


def remember_sent(session: Session, sent: Sent, resource_id: str) -> None:
    """Note what this submission made, in the same transaction."""
    now = read_clock(session)
    session.add(
        Submission(
            resource_id=resource_id,
            project_id=sent.project_id,
            key_id=sent.key_id,
            body_sha256=sent.body_sha256,
            retry_count=sent.retry_count,
            created_at=now,
        )
    )
    session.flush()
