"""Submissions that happen once, however often they are sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Header
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.dependencies import Caller, Server
from core.jobs.store import find_submission, remember_submission

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="A name for this submission: a repeat finds what the first made."),
]


def submit_once(
    server: Server, caller: Caller, key: str | None, body: Any, make: Callable[[Session], str]
) -> tuple[str, Session]:
    """Run `make`, which answers the id of what it wrote, in one transaction, unless this key was there before.

    Answers that id, and the session, for the events that it wrote. Raises Conflict where the key came with another
    body.
    """
    body_sha256 = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    try:
        return _submit(server, caller, key, body_sha256, make)
    except IntegrityError:
        if key is None:
            raise
        # The same key may have been committed by a request beside this one: a second look finds it.
        return _submit(server, caller, key, body_sha256, make)


def _submit(
    server: Server, caller: Caller, key: str | None, body_sha256: str, make: Callable[[Session], str]
) -> tuple[str, Session]:
    with server.database.write() as session:
        known = find_submission(session, caller.project_id, key, body_sha256) if key else None
        if known is not None:
            return known, session
        made = make(session)
        if key:
            remember_submission(session, caller.project_id, key, body_sha256, made)
    return made, session
