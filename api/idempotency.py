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
from core.jobs.idempotency import find_submission, remember_submission
from core.jobs.repeats import Sent, Tries

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

    def sha256_of(self, body: Any) -> str:
        """The fingerprint of what was submitted; without a name, of who sent it where, too."""
        content = f"{self.caller.key_id} {self.path} " if self.key is None else ""
        return hashlib.sha256((content + json.dumps(body, sort_keys=True)).encode()).hexdigest()

    def sent(self, body_sha256: str) -> Sent:
        """A submission without a name, as it can be found again."""
        caller = self.caller
        return Sent(caller.project_id, caller.key_id, body_sha256, self.retry_count, self.arrived)

    def find(self, session: Session, tries: Tries, body_sha256: str) -> str | None:
        """What this submission made before; raises Conflict where the key came with another body."""
        if self.key is not None:
            return find_submission(session, self.caller.project_id, self.key, body_sha256)
        return tries.find(self.sent(body_sha256))

    def remember(self, session: Session, tries: Tries, body_sha256: str, made: str) -> None:
        """Note what it made, to be written by `tries.write`."""
        if self.key is not None:
            remember_submission(session, self.caller.project_id, self.key, body_sha256, made, now=tries.now)
        else:
            tries.remember(self.sent(body_sha256), made)


async def opened(request: Request, caller: Writer, idempotency_key: IdempotencyKey = None) -> Envelope:
    """The envelope of a submission; raises ClientDisconnect where its client has given up.

    That client may be sending it again already: what nobody waits for is better not done.
    """
    if idempotency_key is None and await request.is_disconnected():
        raise ClientDisconnect
    return Envelope(caller, request.url.path, idempotency_key, retry_count(request), request.scope[ARRIVED])


def retry_count(request: Request) -> int:
    """How often the client has sent this before, as it says."""
    count = request.headers.get(RETRY_COUNT, "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0


Submitter = Annotated[Envelope, Depends(opened)]


def submit_once(server: Server, envelope: Envelope, body: Any, make: Callable[[Session], str]) -> tuple[str, Session]:
    """Run `make`, which answers the id of what it wrote, in one transaction, unless this was submitted before.

    Answers that id, and the session, for the events that it wrote. Raises Conflict where the Idempotency-Key came with
    another body.
    """
    body_sha256 = envelope.sha256_of(body)
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
        tries = Tries(session, [envelope.sent(body_sha256)] if envelope.key is None else [])
        made = envelope.find(session, tries, body_sha256)
        if made is None:
            made = make(session)
            envelope.remember(session, tries, body_sha256, made)
        tries.write()
    return made, session
