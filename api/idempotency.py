"""Submissions that happen once, however often they are sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from api.dependencies import Caller, Server, Writer
from api.middleware import ARRIVED
from core.jobs.repeats import Sent, find_sent, remember_sent
from core.jobs.store import find_submission, remember_submission

RETRY_COUNT = "x-stainless-retry-count"  # the openai client's, which sends no Idempotency-Key

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="A name for this submission: a repeat finds what the first made."),
]


@dataclass(frozen=True)
class Envelope:
    """What surrounds a submission's body: who sent it where, its name, if any, else the how-manieth try it is."""

    caller: Caller
    path: str
    key: str | None
    retry_count: int
    arrived: float

    def sent(self, body_sha256: str) -> Sent:
        """A submission without a name, as it can be found again."""
        caller = self.caller
        return Sent(caller.project_id, caller.key_id, body_sha256, self.retry_count, self.arrived)


async def opened(request: Request, caller: Writer, idempotency_key: IdempotencyKey = None) -> Envelope:
    """The envelope of a submission; raises ClientDisconnect where its client has given up.

    That client may be sending it again already: what nobody waits for is better not done.
    """
    if idempotency_key is None and await request.is_disconnected():
        raise ClientDisconnect
    count = request.headers.get(RETRY_COUNT, "")
    retry_count = int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0
    return Envelope(caller, request.url.path, idempotency_key, retry_count, request.scope[ARRIVED])


Submitter = Annotated[Envelope, Depends(opened)]


def submit_once(server: Server, envelope: Envelope, body: Any, make: Callable[[Session], str]) -> tuple[str, Session]:
    """Run `make`, which answers the id of what it wrote, in one transaction, unless this was submitted before.

    Answers that id, and the session, for the events that it wrote. Raises Conflict where the Idempotency-Key came with
    another body.
    """
    content = f"{envelope.caller.key_id} {envelope.path} " if envelope.key is None else ""
    body_sha256 = hashlib.sha256((content + json.dumps(body, sort_keys=True)).encode()).hexdigest()
    try:
        return _submit(server, envelope, body_sha256, make)
    except IntegrityError:
        if envelope.key is None:
            raise
        # The same key may have been committed by a request beside this one: a second look finds it.
        return _submit(server, envelope, body_sha256, make)


def _submit(
    server: Server, envelope: Envelope, body_sha256: str, make: Callable[[Session], str]
) -> tuple[str, Session]:
    with server.database.write() as session:
        known = _find(session, envelope, body_sha256)
        if known is not None:
            return known, session
        made = make(session)
        if envelope.key is None:
            remember_sent(session, envelope.sent(body_sha256), made)
        else:
            remember_submission(session, envelope.caller.project_id, envelope.key, body_sha256, made)
    return made, session


def _find(session: Session, envelope: Envelope, body_sha256: str) -> str | None:
    if envelope.key is None:
        return find_sent(session, envelope.sent(body_sha256))
    return find_submission(session, envelope.caller.project_id, envelope.key, body_sha256)
