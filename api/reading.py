"""Reads jobs' events from SQL for many watchers at once: what several ask for at the same moment is read once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import select

from core.jobs.database import AWAY, Database
from core.jobs.events import EventId, list_events
from core.jobs.models.jobs import Event, Job
from core.jobs.status import TERMINAL, Status
from core.progress import Publisher

PAGE_EVENTS = 500
GATHER_SECONDS = 0.02
JOBS_PER_QUERY = 500
AWAY_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """How far a job is: its status, and the last of its events in SQL."""

    status: Status
    last: EventId

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.status in TERMINAL


class EventReader:
    """Two questions, each answered from a transaction that began after it was asked."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self._database = database
        self._publisher = publisher
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="events")
        self._asked: dict[str, asyncio.Future[Look | None]] = {}
        self._reads: dict[tuple[str, EventId], asyncio.Future[list[Event]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def look(self, job_id: str) -> Look | None:
        """How far a job is; all who ask within a moment share one query, whichever jobs they ask for."""
        if not self._asked:
            task = asyncio.create_task(self._answer())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        future = self._asked.get(job_id)
        if future is None:
            future = self._asked[job_id] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    async def after(self, job_id: str, place: EventId) -> list[Event]:
        """The next events behind `place`, at most a page; all who stand at the same place share one query."""
        future = self._reads.get((job_id, place))
        if future is None:
            future = asyncio.ensure_future(self._in_thread(lambda: self._read(job_id, place)))
            self._reads[job_id, place] = future
            future.add_done_callback(lambda _: self._reads.pop((job_id, place), None))
        return await asyncio.shield(future)

    async def _answer(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        asked, self._asked = self._asked, {}
        try:
            found = await self._in_thread(lambda: self._look_at(list(asked)))
        except Exception as error:
            for future in asked.values():
                future.set_exception(error)
                future.exception()  # those who asked may be gone
            return
        for job_id, future in asked.items():
            future.set_result(found.get(job_id))

    async def _in_thread(self, action: Callable[[], T]) -> T:
        """Run it beside the loop; while the database is away, again and again."""
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, action)
            except AWAY:
                await asyncio.sleep(AWAY_SECONDS)

    def _look_at(self, job_ids: Sequence[str]) -> dict[str, Look]:
        mine = select(Event).where(Event.job_id == Job.id).order_by(Event.fence.desc(), Event.seq.desc()).limit(1)
        fence = mine.with_only_columns(Event.fence).scalar_subquery()
        seq = mine.with_only_columns(Event.seq).scalar_subquery()
        found: dict[str, Look] = {}
        with self._database.read() as session:
            for start in range(0, len(job_ids), JOBS_PER_QUERY):
                some: Any = job_ids[start : start + JOBS_PER_QUERY]
                for row in session.execute(select(Job.id, Job.status, fence, seq).where(Job.id.in_(some))):
                    found[row[0]] = Look(row[1], EventId(row[2] or 0, row[3] or 0))
        return found

    def _read(self, job_id: str, place: EventId) -> list[Event]:
        with self._database.read() as session:
            rows = list_events(session, job_id, after=place, limit=PAGE_EVENTS)
        return self._with_leftovers(job_id, place, rows)

    def _with_leftovers(self, job_id: str, place: EventId, rows: Sequence[Event]) -> list[Event]:
        """The rows, and between two fences what a lost worker had told only Redis: the next worker saves it to SQL."""
        whole: list[Event] = []
        for row in rows:
            if row.fence != place.fence and place.seq:
                whole += self._publisher.published(job_id, rest_of=place)
            whole.append(row)
            place = EventId(row.fence, row.seq)
        return whole

    def close(self) -> None:
        """Stop reading."""
        self._threads.shutdown(wait=False, cancel_futures=True)
