"""A job's events in SQL: added with the change they tell of, read in order, paged by their id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from core.errors import InvalidRequest
from core.jobs.database import read_clock
from core.jobs.models.jobs import Event, Job


@dataclass(frozen=True)
class NewEvent:
    """An event before it has its place in a job's stream."""

    type: str
    message: str = ""
    level: str = "info"
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class EventId:
    """`<fence>-<seq>`: an event's place in its job's stream."""

    fence: int = 0
    seq: int = 0

    def __str__(self) -> str:
        return f"{self.fence}-{self.seq}"

    @classmethod
    def parse(cls, text: str, *, param: str = "after") -> EventId:
        """Read `<fence>-<seq>`; raises InvalidRequest, naming `param`."""
        fence, dash, seq = text.partition("-")
        numbers = [part for part in (fence, seq) if part.isascii() and part.isdigit() and len(part) <= 18]
        if not dash or len(numbers) < 2:
            raise InvalidRequest(f"'{text[:40]}' is not an event id; they look like 2-17", param=param)
        return cls(int(fence), int(seq))


def status_event(job: Job, message: str, level: str = "info") -> NewEvent:
    """Tells what the job's status and attempt are now."""
    return NewEvent("status", message, level, {"status": job.status.value, "attempt": job.attempt})


def add_event(session: Session, job_id: str, *, fence: int, event: NewEvent) -> Event:
    """Append an event in the same transaction as the change it tells of."""
    last = session.scalar(select(func.max(Event.seq)).where(Event.job_id == job_id, Event.fence == fence))
    row = as_row(job_id, fence, (last or 0) + 1, event, now=read_clock(session))
    session.add(row)
    session.flush()
    session.info.setdefault("events", []).append(row)
    return row


def tell_status(session: Session, job: Job, message: str, level: str = "info") -> None:
    """Append what the job's status is now, in the transaction that gave it."""
    add_event(session, job.id, fence=job.fence, event=status_event(job, message, level))


def add_first_events(session: Session, job_id: str, events: Iterable[NewEvent], *, now: float) -> None:
    """Begin the stream of a new job, whose row is written already; the next flush writes them."""
    rows = [as_row(job_id, 0, seq, event, now=now) for seq, event in enumerate(events, 1)]
    session.add_all(rows)
    session.info.setdefault("events", []).extend(rows)


def added_events(session: Session) -> list[Event]:
    """What `add_event` and `add_first_events` wrote in this session: to be published once it is committed."""
    return list(session.info.get("events", []))


def as_row(job_id: str, fence: int, seq: int, event: NewEvent, *, now: float) -> Event:
    """The row of an event at its place."""
    return Event(
        job_id=job_id,
        fence=fence,
        seq=seq,
        created_at=now,
        type=event.type,
        level=event.level,
        message=event.message,
        data=event.data,
    )


def insert_events(session: Session, events: Sequence[Event]) -> None:
    """Write events that may be there already, whoever owns the job: their ids make repeats harmless."""
    if not events:
        return
    rows = [{column.key: getattr(event, column.key) for column in Event.__table__.columns} for event in events]
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(dialect.insert(Event).on_conflict_do_nothing(), rows)


def list_events(
    session: Session,
    job_id: str,
    *,
    after: EventId | None = None,
    types: Sequence[str] = (),
    limit: int = 1000,
    newest_first: bool = False,
    fence: int | None = None,
    attempt: int | None = None,
    name: str | None = None,
) -> list[Event]:
    """Events in order (or newest first), after the one named."""
    place = tuple_(Event.fence, Event.seq)
    query = select(Event).where(Event.job_id == job_id).limit(limit)
    if types:
        query = query.where(Event.type.in_(types))
    if fence is not None:
        query = query.where(Event.fence == fence)
    if attempt is not None:
        query = query.where(Event.data["attempt"].as_integer() == attempt)
    if name is not None:
        query = query.where(Event.data["name"].as_string() == name)
    if after is not None:
        edge = tuple_(after.fence, after.seq)
        query = query.where(place < edge if newest_first else place > edge)
    order = (Event.fence.desc(), Event.seq.desc()) if newest_first else (Event.fence, Event.seq)
    return list(session.scalars(query.order_by(*order)))


def get_event(session: Session, job_id: str, id: EventId, *, type: str) -> Event | None:
    """The event at this place, if there is one and it is of this type."""
    event = session.get(Event, (job_id, id.fence, id.seq))
    return event if event is not None and event.type == type else None


def each_data(session: Session, job_id: str, type: str) -> Iterator[dict[str, Any]]:
    """The data of every event of this type, in order, a few at a time."""
    query = select(Event.data).where(Event.job_id == job_id, Event.type == type).order_by(Event.fence, Event.seq)
    yield from session.scalars(query.execution_options(yield_per=1000))
