"""What an Idempotency-Key made."""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.errors import Conflict
from core.jobs.models.submissions import IdempotencyKey


def find_submission(session: Session, project_id: str, key: str, body_sha256: str) -> str | None:
    """What an earlier request with this Idempotency-Key made; raises Conflict if its body was another."""
    row = session.get(IdempotencyKey, (project_id, key))
    if row is None:
        return None
    if row.body_sha256 != body_sha256:
        raise Conflict("this Idempotency-Key was used with another body; use a new key", code="idempotency_key_reused")
    return row.resource_id


def remember_submission(
    session: Session, project_id: str, key: str, body_sha256: str, resource_id: str, *, now: float
) -> None:
    """Note what this Idempotency-Key made, to be written in the same transaction."""
    session.add(
        IdempotencyKey(
            project_id=project_id, key=key, body_sha256=body_sha256, resource_id=resource_id, created_at=int(now)
        )
    )
